//! /metrics and /healthz over real sockets, and clients that misbehave.

use super::*;

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

#[test]
fn the_pages_are_served_and_nothing_else_is() {
    let stage = Stage::new(2);
    ShardStats::set(&stage.stats[1].grants_total, 42);
    let metrics = get(stage.admin, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("\nfairlock_grants_total{shard=\"1\"} 42\n"));
    assert!(metrics.contains("\nfairlock_grants_possible 1\n"));
    assert!(get(stage.admin, "/healthz").ends_with("\r\n\r\nok\n"));
    assert!(get(stage.admin, "/").starts_with("HTTP/1.1 404 "));
    assert!(ask(stage.admin, "DELETE /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000));
    assert!(ask(stage.admin, &long).starts_with("HTTP/1.1 431 "));
}

#[test]
fn health_says_why_nothing_is_granted() {
    let stage = Stage::new(1);
    ShardStats::set(&stage.stats[0].recovering_ms, 1500);
    let answer = get(stage.admin, "/healthz");
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("recovering, 1500 ms left\n"),
        "{answer}"
    );
    ShardStats::set(&stage.stats[0].recovering_ms, 0);
    stage.stopper().drain();
    let given_up = Instant::now() + PATIENCE;
    while !get(stage.admin, "/healthz").ends_with("\r\n\r\ndraining\n") {
        assert!(Instant::now() < given_up);
    }
}

#[test]
fn slow_and_silent_clients_are_dropped_and_hinder_nobody() {
    let stage = Stage::new(1);
    let mut slow: Vec<_> = (0..100).map(|_| TcpStream::connect(stage.admin).unwrap()).collect();
    for stream in &mut slow {
        // The oldest ones may be gone already: there is room for 64.
        let _ = stream.write_all(b"GET /metrics HTT");
    }
    assert!(get(stage.admin, "/healthz").ends_with("ok\n"));
    for stream in &mut slow {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match stream.read(&mut [0; 1]) {
            Ok(0) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
            Ok(_) => panic!("an answer to half a request"),
        }
    }
}

#[test]
fn a_request_in_pieces_is_answered_once_it_is_whole() {
    let stage = Stage::new(1);
    let mut stream = TcpStream::connect(stage.admin).unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in ["GE", "T /healthz HTTP/1.1\r", "\nHost: x\r\n", "\r", "\n"] {
        stream.write_all(piece.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut answer = String::new();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
}
