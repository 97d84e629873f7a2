//! Bytes arrive, in order, when they are wanted.

use super::*;

fn echo(rig: &mut Rig, link: LinkId, mut far: impl Read + Write + Send + 'static) {
    let client = std::thread::spawn(move || {
        for round in 0_u32..200 {
            far.write_all(&round.to_le_bytes()).unwrap();
            let mut answer = [0; 4];
            far.read_exact(&mut answer).unwrap();
            assert_eq!(u32::from_le_bytes(answer), round);
        }
    });
    let mut rest = 200 * 4;
    while rest > 0 {
        let (from, bytes) = rig.received();
        assert_eq!(from, link);
        rest -= bytes.len();
        rig.send(link, &bytes);
    }
    rig.join(client);
    assert_eq!(rig.closed().0, link);
}

pub(super) fn a_tcp_connection_is_accepted_and_answered(rig: &mut Rig) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    rig.driver.listen(listener.into()).unwrap();
    for _ in 0..3 {
        let connecting = std::thread::spawn(move || TcpStream::connect(address).unwrap());
        let Event::Accepted { socket, peer } = rig.next() else { panic!("a connection expected") };
        let far = rig.join(connecting);
        assert_eq!(peer, far.local_addr().unwrap());
        let link = rig.driver.attach(socket).unwrap();
        rig.driver.read_on(link);
        echo(rig, link, far);
    }
}

pub(super) fn a_unix_stream_is_answered(rig: &mut Rig) {
    let (link, far) = rig.unix();
    echo(rig, link, far);
}

pub(super) fn many_small_sends_arrive_in_order(rig: &mut Rig) {
    let (link, far) = rig.tcp();
    let reader = std::thread::spawn(move || read_all(far));
    for (sent, number) in (0_u32..20_000).enumerate() {
        rig.send(link, &number.to_le_bytes());
        if sent % 7 == 0 {
            rig.pass(Patience::Poll);
        }
    }
    rig.driver.close(link, Flush::Queued);
    assert!(rig.join(reader) == numbers(20_000));
}

pub(super) fn a_slow_reader_gets_everything_in_order(rig: &mut Rig) {
    let (link, mut far) = rig.unix();
    let all = numbers(1 << 21);
    for piece in all.chunks(10_000) {
        rig.send(link, piece);
    }
    rig.settle();
    let waiting = rig.driver.backlog(link);
    assert!(waiting > 0 && waiting < all.len(), "the socket takes some, not all: {waiting}");
    // All the kernel holds: a Unix socket takes more only when most of its buffer is free.
    let mut got = vec![0; all.len() - waiting];
    far.read_exact(&mut got).unwrap();
    rig.settle();
    assert!(rig.driver.backlog(link) < waiting, "what the kernel has taken is no backlog");
    let rest = all.len() - got.len();
    let reader = std::thread::spawn(move || {
        let mut bytes = vec![0; rest];
        for piece in bytes.chunks_mut(50_000) {
            far.read_exact(piece).unwrap();
            std::thread::yield_now();
        }
        (bytes, far)
    });
    let (bytes, _far) = rig.join(reader);
    got.extend(bytes);
    assert!(got == all);
    rig.settle();
    assert_eq!(rig.driver.backlog(link), 0);
}

pub(super) fn a_backlog_that_drains_is_told_once(rig: &mut Rig) {
    const LEFT: usize = 300_000;
    let (link, mut far) = rig.unix();
    let (closed, _far) = rig.unix();
    for link in [link, closed] {
        rig.send(link, &vec![7; 1 << 20]);
        rig.driver.tell_drained(link, LEFT);
    }
    rig.driver.close(closed, Flush::Queued);
    rig.silent();
    assert!(rig.driver.backlog(link) > LEFT, "the peer reads nothing");
    let reader = std::thread::spawn(move || {
        far.read_exact(&mut vec![0; 1 << 20]).unwrap();
        far
    });
    assert!(matches!(rig.next(), Event::Drained { link: drained } if drained == link));
    assert!(rig.driver.backlog(link) <= LEFT);
    let mut far = rig.join(reader);
    rig.silent();
    rig.send(link, &vec![7; 1 << 20]);
    let reader = std::thread::spawn(move || far.read_exact(&mut vec![0; 1 << 20]).map(|()| far).unwrap());
    let _far = rig.join(reader);
    rig.silent();
}

pub(super) fn attaching_reads_once(rig: &mut Rig) {
    let (near, mut far) = UnixStream::pair().unwrap();
    let link = rig.driver.attach(near.into()).unwrap();
    rig.silent();
    write_all(&far, b"a");
    assert_eq!(rig.received(), (link, b"a".to_vec()));
    write_all(&far, b"b");
    rig.silent();
    rig.driver.read_once(link);
    assert_eq!(rig.received(), (link, b"b".to_vec()));
    write_all(&far, b"c");
    rig.silent();
    rig.driver.read_on(link);
    assert_eq!(rig.received(), (link, b"c".to_vec()));
    write_all(&far, b"d");
    assert_eq!(rig.received(), (link, b"d".to_vec()));
    rig.send(link, b"answer");
    rig.settle();
    let mut answer = [0; 6];
    far.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
}

pub(super) fn a_socket_moves_between_drivers_and_nothing_is_lost(rig: &mut Rig) {
    let mut other = rig.another();
    for _ in 0..50 {
        let (near, far) = UnixStream::pair().unwrap();
        let writer = std::thread::spawn(move || {
            let all = numbers(20_000);
            for piece in all.chunks(999) {
                write_all(&far, piece);
            }
        });
        let first = rig.driver.attach(near.into()).unwrap();
        let (_, mut all) = rig.received();
        let socket = rig.driver.detach(first).unwrap();
        assert!(rig.driver.detach(first).is_none(), "given away once");
        assert!(first.slot() < 2, "slots are used again");
        let second = other.driver.attach(socket).unwrap();
        all.extend(other.received().1);
        let socket = other.driver.detach(second).unwrap();
        let third = rig.driver.attach(socket).unwrap();
        rig.driver.read_on(third);
        assert_ne!(first, third);
        while all.len() < 80_000 {
            all.extend(rig.received().1);
        }
        writer.join().unwrap();
        assert_eq!(rig.closed().0, third);
        assert!(all == numbers(20_000));
    }
    assert!(rig.events.is_empty() && other.events.is_empty());
}

pub(super) fn a_paused_link_is_silent_and_resumes_where_it_stopped(rig: &mut Rig) {
    let (link, far) = rig.tcp();
    let mut got = Vec::new();
    for round in 0..20_usize {
        write_all(&far, &numbers(1000)[round * 200..][..100]);
        got.extend(rig.receive(link, 100));
        rig.driver.pause(link);
        if round % 2 == 0 {
            rig.pass(Patience::Poll);
            rig.settle();
            write_all(&far, &numbers(1000)[round * 200 + 100..][..100]);
            rig.settle();
            assert!(rig.events.is_empty(), "paused");
        } else {
            write_all(&far, &numbers(1000)[round * 200 + 100..][..100]);
        }
        rig.driver.read_on(link);
        got.extend(rig.receive(link, 100));
    }
    assert!(got == numbers(1000));
}

pub(super) fn reading_once_ends_reading_on(rig: &mut Rig) {
    let (link, far) = rig.unix();
    write_all(&far, b"on");
    assert_eq!(rig.received(), (link, b"on".to_vec()));
    rig.driver.read_once(link);
    write_all(&far, b"once");
    assert_eq!(rig.received(), (link, b"once".to_vec()));
    rig.settle();
    write_all(&far, b"off");
    rig.silent();
    rig.driver.read_on(link);
    assert_eq!(rig.received(), (link, b"off".to_vec()));
}

pub(super) fn a_flood_on_one_link_does_not_silence_the_others(rig: &mut Rig) {
    let (flood, far) = rig.unix();
    let others: Vec<(LinkId, UnixStream)> = (0..20).map(|_| rig.unix()).collect();
    let stop = far.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        let junk = vec![7; 1 << 16];
        while (&far).write_all(&junk).is_ok() {}
    });
    rig.received();
    for (link, far) in &others {
        write_all(far, b"hello?");
        while rig.received() != (*link, b"hello?".to_vec()) {}
    }
    rig.driver.close(flood, Flush::Discard);
    rig.join(writer);
    drop(stop);
}

pub(super) fn several_listeners_accept_until_they_are_stopped(rig: &mut Rig) {
    let addresses: Vec<std::net::SocketAddr> = (0..2)
        .map(|_| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            rig.driver.listen(listener.into()).unwrap();
            address
        })
        .collect();
    for address in addresses.iter().chain(&addresses) {
        let far = TcpStream::connect(address).unwrap();
        let Event::Accepted { peer, .. } = rig.next() else { panic!("a connection expected") };
        assert_eq!(peer, far.local_addr().unwrap());
    }
    rig.driver.stop_listening();
    rig.settle();
    for address in &addresses {
        assert!(TcpStream::connect(address).is_err(), "nobody listens");
    }
    let again = TcpListener::bind(addresses[0]).unwrap();
    rig.driver.listen(again.into()).unwrap();
    let _far = TcpStream::connect(addresses[0]).unwrap();
    assert!(matches!(rig.next(), Event::Accepted { .. }));
}
