//! Listens on this machine for the browser that a provider sends back (RFC 8252, 7.3).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::CliError;

const PATH: &str = "/callback";
/// Longest head of a request that is read, in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// How long one connection may take.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between looks for a connection.
const INTERVAL: Duration = Duration::from_millis(25);

/// A listener for one sign-in.
pub struct Loopback {
    listener: TcpListener,
    port: u16,
}

/// What came back.
#[derive(Debug)]
pub struct Returned {
    /// The provider's code.
    pub code: String,
    /// Tells the person how it ended.
    pub answer: Page,
}

/// A browser that waits for its page.
#[derive(Debug)]
pub struct Page(TcpStream);

impl Loopback {
    /// Listens on a free port.
    pub fn open() -> Result<Self, CliError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// Where the provider is to send the browser.
    #[must_use]
    pub fn redirect_uri(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// Waits until `deadline` for the browser to come back with `state`. What comes with another state is not the sign-in that
    /// was begun, and is sent away.
    pub fn wait(&self, state: &str, deadline: Instant) -> Result<Returned, CliError> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if let Some(returned) = receive(stream, state)? {
                        return Ok(returned);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::sleep(INTERVAL),
                Err(error) => return Err(error.into()),
            }
            if Instant::now() >= deadline {
                return Err(CliError::Usage("nobody came back from the provider in time; sign in again".to_owned()));
            }
        }
    }
}

impl Page {
    /// Shows that the sign-in is done, or is not.
    pub fn send(mut self, done: bool) {
        let text = if done {
            "You are signed in. You can close this window."
        } else {
            "You are not signed in; the terminal says why. You can close this window."
        };
        show(&mut self.0, "200 OK", text);
    }
}

/// What a browser brought, if it is what is waited for.
fn receive(mut stream: TcpStream, state: &str) -> Result<Option<Returned>, CliError> {
    let prepared = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(CONNECTION_TIMEOUT)));
    if prepared.and_then(|()| stream.set_write_timeout(Some(CONNECTION_TIMEOUT))).is_err() {
        return Ok(None);
    }
    let Some(query) = read_query(&mut stream) else {
        show(&mut stream, "404 Not Found", "There is nothing here.");
        return Ok(None);
    };
    let value = |name: &str| parameter(&query, name);
    if value("state").as_deref() != Some(state) {
        show(&mut stream, "400 Bad Request", "This is not the sign-in that was begun in the terminal.");
        return Ok(None);
    }
    if let Some(code) = value("code").filter(|code| !code.is_empty()) {
        return Ok(Some(Returned { code, answer: Page(stream) }));
    }
    Page(stream).send(false);
    let error = value("error").unwrap_or_else(|| "no code came back".to_owned());
    Err(CliError::Usage(format!("the provider did not sign you in: {error}")))
}

/// The query of a request for the callback.
fn read_query(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut part) = (Vec::new(), [0_u8; 2048]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(&mut part).ok().filter(|length| *length > 0)?;
        head.extend_from_slice(part.get(..length)?);
        if head.len() > MAX_HEAD_BYTES {
            return None;
        }
    }
    let head = String::from_utf8(head).ok()?;
    let target = head.strip_prefix("GET ")?.split(' ').next()?;
    target.strip_prefix(PATH)?.strip_prefix('?').map(str::to_owned)
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| decode(value))
}

fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, hex.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(*first),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn show(stream: &mut TcpStream, status: &str, text: &str) {
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Guidon</title>\
         <body style=\"font-family: sans-serif; margin: 4rem\"><p>{text}</p></body></html>"
    );
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         content-security-policy: default-src 'none'; style-src 'unsafe-inline'\r\nreferrer-policy: no-referrer\r\n\
         connection: close\r\n\r\n{page}",
        page.len()
    );
    // A browser that went away needs no page.
    let _ = stream.write_all(answer.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(port: u16, target: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn only_the_sign_in_that_was_begun_is_taken() {
        let loopback = Loopback::open().unwrap();
        let port = loopback.port;
        let browser = std::thread::spawn(move || {
            let strange = visit(port, "/favicon.ico");
            let forged = visit(port, "/callback?state=other&code=x");
            (strange, forged, visit(port, "/callback?code=a%2Fb+c&state=mine"))
        });
        let returned = loopback.wait("mine", Instant::now() + Duration::from_secs(30)).unwrap();
        assert_eq!(returned.code, "a/b c");
        returned.answer.send(true);
        let (strange, forged, done) = browser.join().unwrap();
        assert!(strange.starts_with("HTTP/1.1 404") && forged.starts_with("HTTP/1.1 400"), "{strange} {forged}");
        assert!(done.starts_with("HTTP/1.1 200") && done.contains("You are signed in"), "{done}");
    }

    #[test]
    fn a_refusal_of_the_provider_and_silence_end_the_wait() {
        let loopback = Loopback::open().unwrap();
        let port = loopback.port;
        let browser = std::thread::spawn(move || visit(port, "/callback?error=access_denied&state=mine"));
        let refused = loopback.wait("mine", Instant::now() + Duration::from_secs(30)).unwrap_err();
        assert!(refused.to_string().contains("access_denied"), "{refused}");
        assert!(browser.join().unwrap().contains("not signed in"));
        assert!(loopback.wait("mine", Instant::now()).unwrap_err().to_string().contains("in time"));
    }
}
