//! The proxy: the flag is asked for every request, in-process, so that a switch costs no request anything.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use guidon_sdk::{Client, Context};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use crate::Failure;

/// The flag that decides.
const FLAG: &str = "backend";
/// The header that says who asks. A proxy in earnest sets it itself, after it has seen who it is.
const USER: &str = "x-user";
/// Who asks where no header says.
const ANYBODY: &str = "anybody";

/// What the proxy needs to know.
#[derive(Debug, Args)]
pub struct Options {
    /// Address of the Guidon server
    #[arg(long, env = "GUIDON_SERVER", value_name = "URL")]
    server: String,
    /// SDK key of the environment
    #[arg(long, env = "GUIDON_SDK_KEY", hide_env_values = true, value_name = "KEY")]
    sdk_key: String,
    /// Port on 127.0.0.1
    #[arg(long)]
    port: u16,
    /// Where blue listens; it serves too while the flag is not known
    #[arg(long)]
    blue: SocketAddr,
    /// Where green listens
    #[arg(long)]
    green: SocketAddr,
}

type Body = BoxBody<Bytes, hyper::Error>;

/// Passes requests on until it is killed.
pub async fn run(options: Options) -> Result<(), Failure> {
    let name = format!("proxy-{}", options.port);
    let connecting = Client::builder(&options.server, &options.sdk_key).application("blue-green").instance(name);
    let guidon = connecting.connect().await?;
    let address = SocketAddr::from(([127, 0, 0, 1], options.port));
    let listener = TcpListener::bind(address).await.map_err(|error| Failure::Listen(address, error))?;
    let options = Arc::new(options);
    loop {
        // A connection that was gone before it was accepted is no matter.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (guidon, options) = (guidon.clone(), Arc::clone(&options));
        tokio::spawn(async move {
            let pass = service_fn(move |request| {
                let backend = backend(&guidon, &options, &request);
                async move { Ok::<_, Infallible>(pass(request, backend).await) }
            });
            // It ends when the peer hangs up, in whatever way.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), pass).await;
        });
    }
}

/// Where this request goes.
fn backend(guidon: &Client, options: &Options, request: &Request<Incoming>) -> SocketAddr {
    let user = request.headers().get(USER).and_then(|user| user.to_str().ok()).filter(|user| !user.is_empty());
    let context = Context::new(user.unwrap_or(ANYBODY));
    if guidon.string(FLAG, &context, "blue") == "green" { options.green } else { options.blue }
}

/// Passes a request on. One that has begun on a backend ends there, also when the flag switches meanwhile.
async fn pass(request: Request<Incoming>, backend: SocketAddr) -> Response<Body> {
    match ask(request, backend).await {
        Ok(answer) => answer.map(BodyExt::boxed),
        Err(error) => {
            let said = Full::new(Bytes::from(format!("{backend}: {error}"))).map_err(|never| match never {});
            let mut answer = Response::new(said.boxed());
            *answer.status_mut() = StatusCode::BAD_GATEWAY;
            answer
        }
    }
}

/// A connection for each request keeps the example short; a proxy in earnest pools them.
async fn ask(
    request: Request<Incoming>,
    backend: SocketAddr,
) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(backend).await?;
    let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}
