//! From a change to the SDKs that hear of it.
//!
//! Two clocks are reported. One starts when the change is acknowledged: what an operator who saw the answer still waits
//! for. Frames may arrive before the acknowledgement does; they count as negative and their number is given. The other
//! starts when the request is sent and includes the validation and the disk. The floor writes one frame of the same size
//! straight to as many plain sockets in one loop; its clocks start alike, at the byte that asks for it and at its answer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::json;

use crate::connections::Connections;
use crate::role::{Remote, Role};
use crate::support::flag;
use crate::{at, median};

/// Push and floor take turns this often.
const ROUNDS: u8 = 5;
/// Changes in a turn.
const CHANGES: usize = 10;

/// Latencies of one turn in milliseconds, sorted.
struct Turn {
    from_acknowledged: Vec<f64>,
    from_sent: Vec<f64>,
    frame_bytes: usize,
}

pub async fn measure(count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let role = Role::start(&["server", folder.path().to_str().unwrap()]);
    let remote = Remote::new(role.address);
    let starting = remote.clone();
    let credential = blocking(move || {
        starting.change(json!([{"kind": "createFlag", "flag": flag("engine", false)}]));
        starting.sdk_key()
    })
    .await;
    println!(
        "\npush to {count} connections: {ROUNDS} rounds of {CHANGES} changes each\n{:>6} {:>7} | {:^26} | {:^26} | {:>12} | {:>11}",
        "", "", "ms from acknowledged", "ms from sent", "before the", "p99 / floor"
    );
    let columns = format!("{:>8} {:>8} {:>8}", "p50", "p99", "max");
    println!("{:>6} {:>7} | {columns} | {columns} | {:>12} | {:>5} {:>5}", "round", "", "ack", "ack", "sent");
    let (mut ratios, mut memory, mut floor) = (Vec::new(), 0.0, None);
    for round in 0..ROUNDS {
        let before = role.resident();
        let mut connections = Connections::open(count, 2 + 2 * round, role.address, Some(&credential)).await;
        for _ in 0..count {
            // Each says so once its snapshot is there.
            connections.next().await;
        }
        if round == 0 {
            memory = role.resident().saturating_sub(before) as f64 / count as f64;
        }
        let push = turn(count, &mut connections, Pusher::Server(remote.clone())).await;
        drop(connections);
        let arguments = ["floor", &count.to_string(), &push.frame_bytes.to_string()];
        let floor: &Role = floor.get_or_insert_with(|| Role::start(&arguments));
        let mut connections = Connections::open(count, 3 + 2 * round, floor.address, None).await;
        let beneath = turn(count, &mut connections, Pusher::floor(floor.address)).await;
        let ratio = |of: fn(&Turn) -> &[f64]| at(of(&push), 0.99) / at(of(&beneath), 0.99);
        let (acknowledged, sent) = (ratio(|turn| &turn.from_acknowledged), ratio(|turn| &turn.from_sent));
        ratios.push(acknowledged);
        row(round, "guidon", &push, &format!("{acknowledged:>5.2} {sent:>5.2}"));
        row(round, "floor", &beneath, "    1     1");
        if round + 1 == ROUNDS {
            println!(
                "median of p99 / floor from acknowledged: {:.2}; frames of {} B; {memory:.0} B of server memory per connection",
                median(ratios.clone()),
                push.frame_bytes
            );
        }
    }
}

fn row(round: u8, name: &str, turn: &Turn, ratio: &str) {
    let columns = |sorted: &[f64]| {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| at(sorted, part));
        format!("{p50:>8.2} {p99:>8.2} {max:>8.2}")
    };
    let early = turn.from_acknowledged.partition_point(|latency| *latency < 0.0);
    let early = format!("{early}/{}", turn.from_acknowledged.len());
    let (acknowledged, sent) = (columns(&turn.from_acknowledged), columns(&turn.from_sent));
    println!("{:>6} {name:>7} | {acknowledged} | {sent} | {early:>12} | {ratio}", round + 1);
}

/// What makes frames go out.
enum Pusher {
    Server(Remote),
    Floor(TcpStream),
}

impl Pusher {
    fn floor(address: SocketAddr) -> Self {
        let control = TcpStream::connect(address).unwrap();
        control.set_nodelay(true).unwrap();
        Self::Floor(control)
    }

    /// Asks for one frame to everybody; when that was sent and when it was acknowledged, taken on this thread, which waits
    /// for nothing else.
    fn push(&mut self, index: usize) -> (Instant, Instant) {
        match self {
            Self::Server(remote) => {
                let kind = if index.is_multiple_of(2) { "turnFlagOff" } else { "turnFlagOn" };
                remote.change(json!([{"kind": kind, "flag": "engine"}]))
            }
            Self::Floor(control) => {
                let sent = Instant::now();
                control.write_all(&[1]).unwrap();
                control.read_exact(&mut [0]).unwrap();
                (sent, Instant::now())
            }
        }
    }
}

async fn turn(count: usize, connections: &mut Connections, mut pusher: Pusher) -> Turn {
    let (mut from_acknowledged, mut from_sent, mut frame_bytes) = (Vec::new(), Vec::new(), 0);
    for index in 0..CHANGES {
        let pushed = tokio::task::spawn_blocking(move || {
            let times = pusher.push(index);
            (pusher, times)
        });
        let mut arrivals = Vec::with_capacity(count);
        while arrivals.len() < count {
            let (arrived, bytes) = connections.next().await;
            frame_bytes = bytes;
            arrivals.push(arrived);
        }
        let (sent, acknowledged);
        (pusher, (sent, acknowledged)) = pushed.await.unwrap();
        from_acknowledged.extend(arrivals.iter().map(|arrived| milliseconds(acknowledged, *arrived)));
        from_sent.extend(arrivals.iter().map(|arrived| milliseconds(sent, *arrived)));
    }
    from_acknowledged.sort_by(f64::total_cmp);
    from_sent.sort_by(f64::total_cmp);
    Turn { from_acknowledged, from_sent, frame_bytes }
}

/// Milliseconds between two instants, negative if `to` is the earlier one.
fn milliseconds(from: Instant, to: Instant) -> f64 {
    let after = to.saturating_duration_since(from).as_secs_f64();
    (after - from.saturating_duration_since(to).as_secs_f64()) * 1e3
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}
