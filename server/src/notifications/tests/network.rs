//! Calling over real connections: what receivers, and a DNS that changes its mind, can do.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::call::ANSWER_TIMEOUT_S;
use super::*;

fn message() -> Message {
    Message {
        id: "evt-h-1".to_owned(),
        timestamp: 1,
        signatures: "v1,abc".to_owned(),
        media_type: "application/json",
        body: Bytes::from_static(b"{}"),
    }
}

fn caller(dns: &[&[&str]], allowed: &[&str]) -> (HttpCaller, Arc<FakeDns>) {
    let answers = dns.iter().map(|answer| answer.iter().map(|address| address.parse().unwrap()).collect()).collect();
    let dns = Arc::new(FakeDns(Mutex::new(answers), AtomicUsize::new(0)));
    let allowed = allowed.iter().map(|net| net.parse().unwrap()).collect();
    (HttpCaller::new(dns.clone(), allowed).unwrap(), dns)
}

/// Answers every connection with these bytes, says what it was sent, and closes.
async fn receiver(answer: &'static [u8], pause: Duration) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sent, got) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sent = sent.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 8_192];
                let length = stream.read(&mut buffer).await.unwrap_or(0);
                let _ = sent.send(String::from_utf8_lossy(&buffer[..length]).into_owned());
                tokio::time::sleep(pause).await;
                let _ = stream.write_all(answer).await;
            });
        }
    });
    (port, got)
}

async fn call(port: u16) -> Result<Answer, CallError> {
    let (caller, _) = caller(&[&["127.0.0.1"]], &["127.0.0.1/32"]);
    caller.call(&Target::parse(&format!("http://hooks.example:{port}/a?b=c")).unwrap(), &message()).await
}

#[tokio::test]
async fn a_message_arrives_with_its_headers_and_redirects_are_answers() {
    let head =
        b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
    let (port, mut got) = receiver(head, Duration::ZERO).await;
    assert_eq!(call(port).await, Ok(Answer { status: 302, retry_after_s: Some(7) }));
    let request = got.recv().await.unwrap().to_ascii_lowercase();
    assert!(request.starts_with("post /a?b=c http/1.1\r\n") && request.ends_with("\r\n\r\n{}"), "{request}");
    for header in
        ["webhook-id: evt-h-1", "webhook-timestamp: 1", "webhook-signature: v1,abc", "content-type: application/json"]
    {
        assert!(request.contains(&format!("\r\n{header}\r\n")), "{request}");
    }
    assert!(request.contains(&format!("\r\nhost: hooks.example:{port}\r\n")), "{request}");
}

#[tokio::test]
async fn a_receiver_that_closes_early_is_a_failure() {
    let (port, _got) = receiver(b"", Duration::ZERO).await;
    assert!(matches!(call(port).await, Err(CallError::Broken(_))));
    let (port, _got) = receiver(b"HTTP/1.1 200 O", Duration::ZERO).await;
    assert!(matches!(call(port).await, Err(CallError::Broken(_))));
    let (port, _got) = receiver(b"SSH-2.0-OpenSSH\r\n", Duration::ZERO).await;
    assert!(matches!(call(port).await, Err(CallError::Broken(_))));
}

#[tokio::test]
async fn a_body_without_end_changes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4_096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10485760\r\n\r\n").await;
        while stream.write_all(&[b'x'; 16_384]).await.is_ok() && count.fetch_add(16_384, Ordering::SeqCst) < 10 << 20 {}
    });
    let started = Instant::now();
    assert_eq!(call(port).await, Ok(Answer { status: 200, retry_after_s: None }));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_is_waited_for_so_long_and_no_longer() {
    let (port, _got) = receiver(b"HTTP/1.1 200 OK\r\n\r\n", Duration::from_secs(3_600)).await;
    let late = CallError::Late { what: "no answer", seconds: ANSWER_TIMEOUT_S };
    assert_eq!(call(port).await, Err(late));
}

#[tokio::test]
async fn a_name_that_leads_to_private_addresses_is_not_called() {
    let target = Target::parse("https://hooks.example/").unwrap();
    for answer in [&["10.0.0.1"][..], &["1.1.1.1", "127.0.0.1"], &["::ffff:169.254.169.254"], &["64:ff9b::a00:1"]] {
        let (caller, _) = caller(&[answer], &[]);
        assert!(matches!(caller.check(&target).await, Err(CallError::NotAllowed(..))), "{answer:?}");
        assert!(matches!(caller.call(&target, &message()).await, Err(CallError::NotAllowed(..))), "{answer:?}");
    }
    let (caller, _) = caller(&[], &[]);
    assert!(matches!(caller.check(&target).await, Err(CallError::Unresolved { .. })));
    // Written as numbers, which a resolver reads as this machine.
    for host in ["127.0.0.1", "[::1]", "[::ffff:7f00:1]", "169.254.169.254", "10.1.2.3"] {
        let target = Target::parse(&format!("https://{host}/")).unwrap();
        assert!(matches!(caller.check(&target).await, Err(CallError::NotAllowed(..))), "{host}");
    }
}

#[tokio::test]
async fn a_name_that_changes_its_address_after_the_check_is_not_followed() {
    let (port, mut got) = receiver(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Duration::ZERO).await;
    // Public when the webhook is made, this machine when it is called.
    let (caller, dns) = caller(&[&["1.1.1.1"], &["127.0.0.1"]], &[]);
    let target = Target::parse(&format!("https://hooks.example:{port}/")).unwrap();
    assert_eq!(caller.check(&target).await, Ok(()));
    assert!(matches!(caller.call(&target, &message()).await, Err(CallError::NotAllowed(..))));
    assert_eq!(dns.1.load(Ordering::SeqCst), 2, "resolved once each time");
    assert!(got.try_recv().is_err(), "nobody was called");
}

#[tokio::test]
async fn without_tls_only_listed_networks_are_called() {
    let (caller, _) = caller(&[&["1.1.1.1"]], &["127.0.0.0/8"]);
    let public = Target::parse("http://hooks.example/").unwrap();
    assert_eq!(caller.check(&public).await, Err(CallError::PlainHttp));
    assert_eq!(caller.check(&Target::parse("http://127.0.0.1/").unwrap()).await, Ok(()));
}
