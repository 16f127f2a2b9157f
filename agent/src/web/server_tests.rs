use std::{
    convert::Infallible,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream as Client},
    pin::Pin,
    task::{Context, Poll},
    thread::JoinHandle,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::header,
    routing::get,
};
use hyper::body::Frame;

use super::*;

/// Far longer than anything here takes, and shorter than a person waits.
const DEADLINE: Duration = Duration::from_secs(20);

/// Larger than what two sockets hold between them.
const LARGE: usize = 32 << 20;

/// A server in a thread of its own.
struct Served {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    refusals: Arc<Refusals>,
    thread: JoinHandle<()>,
}

/// Events that never come.
struct Silence;

impl HttpBody for Silence {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

fn routes() -> Router {
    let events = || async {
        (
            [(header::CONTENT_TYPE, "text/event-stream")],
            Body::new(Silence),
        )
    };
    let slow = || async {
        sleep(Duration::from_millis(300)).await;
        "slow\n"
    };
    Router::new()
        .route("/", get(|| async { "hello\n" }))
        .route("/large", get(|| async { vec![b'x'; LARGE] }))
        .route("/events", get(events))
        .route("/slow", get(slow))
}

impl Served {
    fn start(bounds: Bounds) -> Self {
        let (stop, stopped) = watch::channel(false);
        let refusals = Arc::<Refusals>::default();
        let site = Site {
            router: routes(),
            config: None,
            bounds,
            refusals: Arc::clone(&refusals),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build().unwrap().block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                serve(Listener::Tcp(listener), site, stopped).await;
            });
        });
        Self {
            address,
            stop,
            refusals,
            thread,
        }
    }

    fn connect(&self) -> Client {
        let client = Client::connect(self.address).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client
    }

    fn ask(&self, request: &str) -> Client {
        let mut client = self.connect();
        client.write_all(request.as_bytes()).unwrap();
        client
    }

    fn get(&self, path: &str) -> String {
        whole(self.ask(&format!("GET {path} HTTP/1.0\r\n\r\n")))
    }

    fn count(&self, reason: &str) -> u64 {
        let mut counts = self.refusals.counts().by_reason();
        counts.find(|(name, _)| *name == reason).unwrap().1
    }

    /// Waits until so many have been turned away for a reason.
    fn wait(&self, reason: &str, count: u64) {
        let started = Instant::now();
        while self.count(reason) < count {
            let counts: Vec<_> = self.refusals.counts().by_reason().collect();
            assert!(started.elapsed() < DEADLINE, "{reason}: {counts:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// All until the connection ends, however it does.
fn whole(mut client: Client) -> String {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    while let Ok(length @ 1..) = client.read(&mut part) {
        text.extend_from_slice(&part[..length]);
    }
    String::from_utf8(text).unwrap()
}

/// One answer that says how long it is, of a connection that stays.
fn one(client: &mut Client, end: &str) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with(end) {
        client.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    text
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let served = Served::start(Bounds::default());
    let mut client = served.connect();
    for _ in 0..3 {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let answer = one(&mut client, "hello\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}

#[test]
fn only_get_without_a_body_is_answered() {
    let served = Served::start(Bounds::default());
    for (request, status, header) in [
        ("GET / HTTP/1.0\r\n\r\n", "200 OK", "content-length: 6"),
        ("HEAD / HTTP/1.0\r\n\r\n", "200 OK", "content-length: 6"),
        ("GET /no HTTP/1.0\r\n\r\n", "404 Not Found", ""),
        (
            "POST / HTTP/1.0\r\n\r\n",
            "405 Method Not Allowed",
            "allow: GET, HEAD",
        ),
        (
            "DELETE /no HTTP/1.0\r\n\r\n",
            "405 Method Not Allowed",
            "allow: GET, HEAD",
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
            "413 Payload Too Large",
            "connection: close",
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            "413 Payload Too Large",
            "connection: close",
        ),
        ("nonsense\r\n\r\n", "400 Bad Request", ""),
    ] {
        let answer = whole(served.ask(request));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(status) && head.contains(header),
            "{request}{answer}"
        );
        assert_eq!(
            body == "hello\n",
            request.starts_with("GET / HTTP/1.0"),
            "{answer}"
        );
    }
}

#[test]
fn a_head_beyond_16_kib_is_refused() {
    let served = Served::start(Bounds::default());
    for (length, status) in [
        (12_000, "200 OK"),
        (17_000, "431 Request Header Fields Too Large"),
    ] {
        let request = format!("GET / HTTP/1.0\r\nX: {}\r\n\r\n", "x".repeat(length));
        let answer = whole(served.ask(&request));
        assert!(answer.contains(status), "{length}: {answer}");
    }
}

#[test]
fn a_client_that_asks_is_served_however_many_never_finish() {
    let bounds = Bounds {
        connections: 8,
        ..Bounds::default()
    };
    let served = Served::start(bounds);
    let unfinished: Vec<_> = (0..50)
        .map(|_| served.ask("GET / HTTP/1.1\r\nX-"))
        .collect();
    for _ in 0..50 {
        assert!(served.get("/").ends_with("hello\n"));
    }
    served.wait("displaced", 42);
    drop(unfinished);
}

#[test]
fn a_head_that_is_never_finished_and_an_idle_connection_come_to_an_end() {
    let served = Served::start(Bounds {
        head: Duration::from_millis(100),
        ..Bounds::default()
    });
    assert_eq!(whole(served.ask("GET / HTT")), "");
    assert_eq!(whole(served.connect()), "");
    served.wait("slow_request", 2);
    // Another, whose time for a head even a client that is held up for long keeps.
    let served = Served::start(Bounds {
        idle: Duration::from_millis(100),
        ..Bounds::default()
    });
    let answer = whole(served.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(answer.ends_with("hello\n"), "{answer}");
    assert_eq!(served.count("slow_request"), 0, "an idle end is no refusal");
}

#[test]
fn who_does_not_read_makes_room_for_others() {
    let bounds = Bounds {
        stalled: 2,
        ..Bounds::default()
    };
    let served = Served::start(bounds);
    let request = "GET /large HTTP/1.0\r\n\r\n";
    let silent: Vec<_> = (0..5).map(|_| served.ask(request)).collect();
    served.wait("slow_reader", 3);
    // One that reads gets all of it.
    assert!(served.get("/large").len() > LARGE);
    drop(silent);
}

#[test]
fn who_does_not_read_is_cut_off_after_a_while() {
    let bounds = Bounds {
        stall: Duration::from_millis(100),
        ..Bounds::default()
    };
    let served = Served::start(bounds);
    let _silent = served.ask("GET /large HTTP/1.0\r\n\r\n");
    served.wait("slow_reader", 1);
}

#[test]
fn event_streams_are_counted_and_stay_while_nothing_comes() {
    let bounds = Bounds {
        streams: 2,
        connections: 4,
        idle: Duration::from_millis(1),
        ..Bounds::default()
    };
    let served = Served::start(bounds);
    let request = "GET /events HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut streams: Vec<_> = (0..2).map(|_| served.ask(request)).collect();
    for stream in &mut streams {
        assert!(one(stream, "\r\n\r\n").contains("200 OK"));
    }
    let refused = served.get("/events");
    assert!(
        refused.contains("503") && refused.contains("retry-after: 10"),
        "{refused}"
    );
    assert_eq!(served.count("streams"), 1);
    // They are not displaced, and give their places back when they end.
    let _unfinished: Vec<_> = (0..20)
        .map(|_| served.ask("GET / HTTP/1.1\r\nX-"))
        .collect();
    assert!(served.get("/").ends_with("hello\n"));
    assert_eq!(served.count("full"), 0);
    drop(streams);
    let started = Instant::now();
    loop {
        if one(&mut served.ask(request), "\r\n\r\n").contains("200 OK") {
            return;
        }
        assert!(started.elapsed() < DEADLINE);
    }
}

#[test]
fn at_the_end_what_is_asked_is_answered_and_the_rest_is_closed() {
    let served = Served::start(Bounds::default());
    let unfinished = served.ask("GET / HTTP/1.1\r\nX-");
    let mut idle = served.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    one(&mut idle, "hello\n");
    let asked = served.ask("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    // It is answered by now as far as it can be told from here.
    assert!(served.get("/").ends_with("hello\n"));
    served.stop.send_replace(true);
    assert_eq!(whole(unfinished), "");
    assert_eq!(whole(idle), "");
    let answer = whole(asked);
    assert!(answer.ends_with("slow\n"), "{answer}");
    served.thread.join().unwrap();
    assert!(Client::connect(served.address).is_err());
}
