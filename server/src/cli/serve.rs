//! `guidon serve`: runs the server.

use std::io::{ErrorKind, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;

use clap::{ArgMatches, Args};
use tokio::net::{TcpListener, TcpSocket};

use super::CliError;
use crate::app::{Embedded, StartError};
use crate::config::{ADMIN_TOKEN, Config, ConfigError, MASTER_KEY, layers};
use crate::http::transport::Tls;
use crate::shutdown::{Shutdown, stop_signal};
use crate::telemetry::start_log;

/// Most connections that wait to be accepted; the kernel lowers it to `net.core.somaxconn`. When all applications come back at
/// once, those beyond it wait for TCP to try again, for a second first and for a minute in the end.
const BACKLOG: u32 = 65_535;

/// Options of `guidon serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    #[command(flatten)]
    _options: layers::Options,
}

/// What is wrong with a configuration, a line or more for each problem.
pub(super) fn config_error(problems: &[ConfigError]) -> CliError {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    CliError::Usage(lines.join("\n"))
}

/// Serves until a signal ends it. `matches` are those of the command.
pub fn run(matches: &ArgMatches) -> Result<(), CliError> {
    let effective = layers::resolve(matches).map_err(|problems| config_error(&problems))?;
    let config = &effective.config;
    start_log(&config.log).map_err(|error| CliError::Usage(error.to_string()))?;
    match &effective.file {
        Some(file) => tracing::info!(file = %file.display(), "configured by flags, the environment and this file"),
        None => tracing::info!("configured by flags and the environment; no configuration file is named"),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: &Config) -> Result<(), CliError> {
    // Bound first: a port in use is found out before the store is touched.
    let listener = bind(config.network.listen)?;
    let address = listener.local_addr()?;
    let token = ADMIN_TOKEN.read(config).map_err(|error| config_error(&[error]))?;
    let key = MASTER_KEY.in_environment();
    let embedded = Box::pin(Embedded::open(config, token.as_deref(), key.as_deref()))
        .await
        .map_err(|error| start_error(&error, &config.storage.data))?;
    let (shutdown, tls) = (embedded.parts.shutdown.clone(), embedded.parts.tls.clone());
    greet(&embedded, config, address)?;
    watch_signals(shutdown, tls)?;
    let (app, store) = embedded.into_app(config);
    app.serve(listener).await;
    tokio::task::spawn_blocking(move || store.close())
        .await
        .map_err(|error| CliError::Unexpected(error.to_string()))?;
    tracing::info!("stopped");
    Ok(())
}

/// As [`TcpListener::bind`], which waits with 1,024 connections at most.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, CliError> {
    listen(address).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => CliError::Unexpected(format!(
            "{address} is in use by another process.\n  Stop it, or choose another port: guidon serve --listen {}:{}",
            address.ip(),
            address.port().checked_add(1).unwrap_or(8081),
        )),
        ErrorKind::PermissionDenied => {
            CliError::Unexpected(format!("{address}: this user may not listen there; ports below 1024 need privileges"))
        }
        ErrorKind::AddrNotAvailable => CliError::Unexpected(format!("{address} is no address of this machine")),
        _ => CliError::Unexpected(format!("cannot listen on {address}: {error}")),
    })
}

fn start_error(error: &StartError, folder: &Path) -> CliError {
    let text = error.to_string();
    if refused_by_the_system(error) {
        return CliError::Unexpected(format!(
            "{text}\n  The data folder {} has to be a folder that this user may write; --data or GUIDON_DATA names another.",
            folder.display()
        ));
    }
    match error {
        StartError::State(_) | StartError::Assignments(_) | StartError::Vault(_) | StartError::Audit(_)
            if !text.contains("is in use by process") =>
        {
            CliError::Damaged(format!(
                "{text}\n  Nothing was changed. The store is in {}. The choices: restore it from a backup, or look closer with \
             `guidon audit verify --data {0}`.",
                folder.display()
            ))
        }
        StartError::State(_) | StartError::Assignments(_) | StartError::Vault(_) | StartError::Audit(_) => {
            CliError::Unexpected(text)
        }
        StartError::Identity(_)
        | StartError::Tls(_)
        | StartError::Limit(_)
        | StartError::Provider(_)
        | StartError::Config(_) => CliError::Usage(text),
        _ => CliError::Unexpected(text),
    }
}

/// Whether the system did not let the server into its folder, which says nothing of the store.
fn refused_by_the_system(error: &StartError) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if let Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory) = kind {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Says where the server is and, at the first start, what to do next.
fn greet(embedded: &Embedded, config: &Config, address: SocketAddr) -> Result<(), CliError> {
    let scheme = if config.network.tls_cert.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}");
    let mut out = std::io::stdout().lock();
    if std::io::stdout().is_terminal() {
        writeln!(out, "Guidon {} at {url}\n", env!("CARGO_PKG_VERSION"))?;
        writeln!(out, "  data   {}", config.storage.data.display())?;
        writeln!(out, "  docs   {url}/api/docs")?;
    } else {
        writeln!(out, "listening {url}")?;
        writeln!(out, "data {}", config.storage.data.display())?;
        writeln!(out, "docs {url}/api/docs")?;
    }
    if let Some(path) = &embedded.made_key_file {
        writeln!(out, "\nThe master key is in {}: back it up, apart from the data.", path.display())?;
    }
    if let Some(token) = &embedded.made_token {
        writeln!(out, "\nThis is the operator's token, which changes development and testing and reads the rest.")?;
        writeln!(out, "It is shown this once and is stored hashed only:\n")?;
        writeln!(out, "  export GUIDON_TOKEN={}", token.reveal())?;
        if url != "http://127.0.0.1:8080" {
            writeln!(out, "  export GUIDON_SERVER={url}")?;
        }
        writeln!(out, "\nThen, in another terminal:\n")?;
        let guidon = called();
        writeln!(out, "  {guidon} flag create new-checkout")?;
        writeln!(out, "  {guidon} flag on new-checkout")?;
        writeln!(out, "  {guidon} sdk-key create")?;
    }
    if !embedded.parts.changes.world().directory.is_claimed() {
        let guidon = called();
        writeln!(
            out,
            "\nStaging and production are changed by people with roles. To invite the first administrator:\n"
        )?;
        writeln!(out, "  {guidon} account invite NAME")?;
        writeln!(out, "  {guidon} role grant administrator --to NAME")?;
    }
    Ok(out.flush()?)
}

/// How this program is called from this folder: by its name if the shell finds it, else by its path.
fn called() -> String {
    let Ok(program) = std::env::current_exe() else { return "guidon".to_owned() };
    let search = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&search).any(|folder| folder.join("guidon") == program) {
        return "guidon".to_owned();
    }
    let here = std::env::current_dir().unwrap_or_default();
    program.strip_prefix(here).unwrap_or(&program).display().to_string()
}

fn watch_signals(shutdown: Shutdown, tls: Option<Tls>) -> Result<(), CliError> {
    if let Some(tls) = tls {
        let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                match tls.reload() {
                    Ok(()) => tracing::info!("the certificate was read again"),
                    Err(error) => tracing::error!(%error, "the certificate was not read again; the old one stays"),
                }
            }
        });
    }
    tokio::spawn(async move {
        let signal = stop_signal().await;
        if signal.is_ok() {
            // Before anything is said of it: nothing may be in the way of the stop.
            shutdown.begin();
        }
        match signal {
            Ok(signal) => tracing::info!(signal, "stopping; a second signal stops at once"),
            Err(error) => return tracing::error!(%error, "signals cannot be handled"),
        }
        if stop_signal().await.is_ok() {
            tracing::warn!("stopped at once");
            std::process::exit(1);
        }
    });
    Ok(())
}
