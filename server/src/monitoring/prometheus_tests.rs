use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Instant;

use super::*;

/// A server that gives one answer to each connection and tells the heads of requests.
fn fake(answers: Vec<Option<(u16, String)>>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (heads, told) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let Ok((stream, _)) = listener.accept() else { return };
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let _ = heads.send(head.join("\n"));
            match answer {
                Some((status, body)) => {
                    let length = body.len();
                    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                    let _ = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(body.as_bytes()));
                }
                None => std::thread::sleep(Duration::from_secs(TIMEOUT_S + 2)),
            }
        }
    });
    (url, told)
}

fn success(kind: &str, result: &str) -> String {
    format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}"#)
}

#[test]
fn one_number_is_read_and_everything_else_is_said() {
    let read_ok = |kind: &str, result: &str| read(200, success(kind, result).as_bytes());
    assert_eq!(read_ok("scalar", r#"[1435781430.781,"0.25"]"#), Ok(0.25));
    assert_eq!(read_ok("vector", r#"[{"metric":{"a":"b"},"value":[1,"-3e2"]}]"#), Ok(-300.0));
    assert_eq!(read_ok("vector", "[]"), Err(QueryError::Nothing));
    let two = r#"[{"metric":{},"value":[1,"1"]},{"metric":{},"value":[1,"2"]}]"#;
    assert_eq!(read_ok("vector", two), Err(QueryError::Many(2)));
    assert_eq!(read_ok("matrix", "[]"), Err(QueryError::NotANumber("matrix".to_owned())));
    for text in ["NaN", "+Inf", "-Inf", ""] {
        assert_eq!(read_ok("scalar", &format!(r#"[1,"{text}"]"#)), Err(QueryError::NotFinite(text.to_owned())));
    }
    for broken in ["[1]", "7", "{}"] {
        assert_eq!(read_ok("scalar", broken), Err(QueryError::NotTheApi(200)), "{broken}");
    }
    let refused = br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
    assert_eq!(read(400, refused), Err(QueryError::BadQuery("parse error".to_owned())));
    assert_eq!(read(401, b""), Err(QueryError::Refused(401)));
    assert_eq!(read(404, b"<html>"), Err(QueryError::NotTheApi(404)));
    let long = format!(r#"{{"status":"error","error":"{}"}}"#, "ö".repeat(300));
    assert!(matches!(read(400, long.as_bytes()), Err(QueryError::BadQuery(said)) if said.len() == 200));
}

#[test]
fn what_is_no_endpoint_is_refused() {
    let refused = |url: &str, token: Option<&str>| Prometheus::new(url, token.map(str::to_owned)).err();
    for url in ["", "prometheus:9090", "ftp://a", "https://a:b@c/", "http://a/?x=1"] {
        assert!(matches!(refused(url, None), Some(BadEndpoint::Url(_))), "{url}");
    }
    assert_eq!(refused("http://prometheus:9090", None), None);
    assert_eq!(refused("http://prometheus:9090", Some("t")), Some(BadEndpoint::TokenInTheClear));
    assert_eq!(refused("http://127.0.0.1:9090", Some("t")), None);
    assert_eq!(refused("https://prometheus/prefix/", Some("t")), None);
}

#[tokio::test]
async fn the_query_arrives_as_it_is_with_the_token() {
    let (url, heads) = fake(vec![Some((200, success("scalar", r#"[1,"4"]"#)))]);
    let prometheus = Prometheus::new(&url, Some("tok".to_owned())).unwrap();
    let query = r#"sum(rate(errors{job="a+b & c"}[1m]))"#;
    assert_eq!(Monitor::value(&prometheus, query).await, Ok(4.0));
    let head = heads.recv().unwrap();
    let path = head.lines().next().unwrap().split(' ').nth(1).unwrap();
    let asked: http::Uri = path.parse().unwrap();
    assert_eq!(asked.path(), "/api/v1/query");
    let decoded: Vec<u8> = decode(asked.query().unwrap().strip_prefix("query=").unwrap());
    assert_eq!(String::from_utf8(decoded).unwrap(), query);
    assert!(head.to_lowercase().contains("authorization: bearer tok"), "{head}");
}

fn decode(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    std::iter::from_fn(|| {
        Some(match bytes.next()? {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            b'+' => b' ',
            other => other,
        })
    })
    .collect()
}

#[tokio::test]
async fn who_is_away_silent_or_chatty_costs_a_bounded_time() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let away = Prometheus::new(&gone, None).unwrap().query("up").await;
    assert!(matches!(away, Err(QueryError::Unreachable(_))), "{away:?}");
    let (url, _heads) = fake(vec![Some((200, "x".repeat(MAX_ANSWER_BYTES as usize + 1))), None]);
    let prometheus = Prometheus::new(&url, None).unwrap();
    assert_eq!(prometheus.query("up").await, Err(QueryError::TooLarge));
    let started = Instant::now();
    let silent = prometheus.query("up").await;
    assert!(matches!(silent, Err(QueryError::Unreachable(_))), "{silent:?}");
    assert!(started.elapsed() < Duration::from_secs(TIMEOUT_S + 1), "{:?}", started.elapsed());
}
