//! Links end in every way and state, with the right last event and nothing left behind.

use super::*;

pub(super) fn the_end_of_a_stream_comes_after_its_last_bytes(rig: &mut Rig) {
    for round in 0..100_u32 {
        let (link, far) = if round % 2 == 0 {
            let (link, far) = rig.tcp();
            (link, Box::new(far) as Box<dyn Write>)
        } else {
            let (link, far) = rig.unix();
            (link, Box::new(far) as Box<dyn Write>)
        };
        let mut far = far;
        far.write_all(&numbers(10_000)).unwrap();
        drop(far);
        assert!(rig.receive(link, 40_000) == numbers(10_000));
        let (ended, error) = rig.closed();
        assert!(ended == link && error.is_none(), "{error:?}");
    }
    rig.silent();
}

pub(super) fn an_end_together_with_the_last_bytes_is_seen(rig: &mut Rig) {
    for round in 0..400_usize {
        let (link, far) = rig.unix();
        // The receive is armed and waits.
        rig.pass(Patience::Poll);
        rig.pass(Patience::Poll);
        let writes = 1 + round % 7;
        let close = move || {
            let far = far;
            for _ in 0..writes {
                write_all(&far, b"x");
            }
            if round % 3 == 0 {
                far.shutdown(std::net::Shutdown::Write).unwrap();
            }
        };
        if round % 2 == 0 {
            // Both before the driver looks.
            close();
            assert_eq!(rig.receive(link, writes).len(), writes);
        } else {
            let writer = std::thread::spawn(close);
            assert_eq!(rig.receive(link, writes).len(), writes);
            writer.join().unwrap();
        }
        let begun = std::time::Instant::now();
        while rig.events.is_empty() {
            rig.pass(Patience::Sleep(Some(MOMENT)));
            assert!(begun.elapsed() < Duration::from_secs(20), "round {round}: the end was missed");
        }
        let (ended, error) = rig.closed();
        assert!(ended == link && error.is_none(), "{error:?}");
    }
}

pub(super) fn an_end_after_a_flood_is_seen(rig: &mut Rig) {
    for round in 0..40_usize {
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let (_, far) = rig.unix();
                std::thread::spawn(move || {
                    far.set_nonblocking(true).unwrap();
                    let begun = std::time::Instant::now();
                    while begun.elapsed() < MOMENT {
                        let _ = (&far).write(&[0; 8192]);
                    }
                })
            })
            .collect();
        let begun = std::time::Instant::now();
        let mut ended = 0;
        while ended < writers.len() {
            match rig.events.pop_front() {
                Some(Event::Received { chunk, .. }) => rig.driver.recycle(chunk),
                Some(Event::Closed { .. }) => ended += 1,
                Some(other) => panic!("{other:?}"),
                None => rig.pass(Patience::Sleep(Some(MOMENT))),
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "round {round}: {ended} ends were seen");
        }
        for writer in writers {
            writer.join().unwrap();
        }
    }
}

pub(super) fn a_reset_is_an_error(rig: &mut Rig) {
    let (link, far) = rig.tcp();
    rustix::net::sockopt::set_socket_linger(&far, Some(Duration::ZERO)).unwrap();
    drop(far);
    let (ended, error) = rig.closed();
    assert_eq!((ended, error.unwrap().kind()), (link, io::ErrorKind::ConnectionReset));
}

pub(super) fn a_failed_write_ends_the_link_after_what_the_peer_sent(rig: &mut Rig) {
    for _ in 0..50 {
        let (link, far) = rig.unix();
        write_all(&far, b"last words");
        drop(far);
        // Too early to know of the peer's end: the write fails first.
        rig.send(link, b"answer");
        rig.send(link, b"another");
        assert_eq!(rig.receive(link, 10), b"last words");
        assert_eq!(rig.closed().0, link);
    }
    rig.silent();
}

pub(super) fn a_failed_write_ends_a_link_nobody_reads(rig: &mut Rig) {
    let (link, far) = rig.unix();
    rig.driver.pause(link);
    rig.settle();
    drop(far);
    rig.settle();
    rig.events.clear();
    let (link, far) = rig.unix();
    write_all(&far, b"x");
    rig.receive(link, 1);
    rig.driver.pause(link);
    rig.settle();
    drop(far);
    rig.send(link, b"answer");
    let (ended, error) = rig.closed();
    assert_eq!((ended, error.unwrap().kind()), (link, io::ErrorKind::BrokenPipe));
    assert_eq!(rig.driver.backlog(link), 0);
}

pub(super) fn closing_with_flush_delivers_everything(rig: &mut Rig) {
    for round in 0..20 {
        let (link, far) = rig.tcp();
        // Input that nobody will read: a plain close would reset the connection over it.
        write_all(&far, &[0; 5000]);
        if round % 2 == 0 {
            rig.receive(link, 5000);
            write_all(&far, &[0; 5000]);
        }
        for piece in numbers(1 << 18).chunks(1 << 17) {
            rig.send(link, piece);
        }
        rig.driver.close(link, Flush::Queued);
        assert_eq!(rig.driver.detach(link).map(drop), None);
        let reader = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            read_all(far)
        });
        assert!(rig.join(reader) == numbers(1 << 18));
    }
    rig.silent();
}

pub(super) fn closing_with_flush_serves_a_peer_that_has_stopped_sending(rig: &mut Rig) {
    for _ in 0..20 {
        let (link, far) = rig.unix();
        rig.send(link, &numbers(1 << 19));
        rig.pass(Patience::Poll);
        rig.driver.close(link, Flush::Queued);
        far.shutdown(std::net::Shutdown::Write).unwrap();
        rig.settle();
        let reader = std::thread::spawn(move || read_all(far));
        assert!(rig.join(reader) == numbers(1 << 19));
    }
    rig.silent();
}

pub(super) fn closing_with_flush_gives_up_on_a_peer_that_does_not_read(rig: &mut Rig) {
    let (link, far) = rig.unix();
    let all = numbers(1 << 20);
    rig.send(link, &all);
    rig.driver.close(link, Flush::Queued);
    let reader = std::thread::spawn(move || {
        // Waits for the hang-up before it reads anything.
        let mut observed = [rustix::event::PollFd::new(&far, rustix::event::PollFlags::empty())];
        rustix::event::poll(&mut observed, None).unwrap();
        read_all(far)
    });
    let got = rig.join(reader);
    assert!(!got.is_empty() && got.len() < all.len() && got == all[..got.len()]);
    rig.silent();
}

pub(super) fn closing_with_discard_ends_the_stream_at_once(rig: &mut Rig) {
    let (link, far) = rig.tcp();
    rig.send(link, &numbers(1 << 21));
    rig.settle();
    rig.driver.close(link, Flush::Discard);
    let reader = std::thread::spawn(move || read_all(far));
    let got = rig.join(reader);
    assert!(got == numbers(1 << 21)[..got.len()]);
    rig.silent();
}

pub(super) fn a_closed_link_has_no_events_and_its_id_is_dead(rig: &mut Rig) {
    for flush in [Flush::Discard, Flush::Queued] {
        let (link, far) = rig.unix();
        let (near, far2) = UnixStream::pair().unwrap();
        let holder = near.try_clone().unwrap();
        let second = rig.driver.attach(near.into()).unwrap();
        write_all(&far, b"unread");
        write_all(&far2, b"unread");
        rig.driver.close(link, flush);
        rig.driver.close(second, flush);
        for dead in [link, second] {
            rig.driver.read_on(dead);
            rig.driver.pause(dead);
            rig.send(dead, b"nothing");
            rig.driver.close(dead, flush);
        }
        rig.settle();
        assert!(read_all(far).is_empty(), "closed means closed");
        assert!(read_all(far2).is_empty(), "a second holder of the socket keeps no stream alive");
        drop(holder);
        rig.silent();
        assert_eq!(rig.driver.backlog(link), 0);
    }
}

pub(super) fn closing_with_operations_in_flight_leaks_no_descriptor(rig: &mut Rig) {
    if !is_alone("closing_with_operations_in_flight_leaks_no_descriptor", rig) {
        return;
    }
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    for round in 0..1000_u32 {
        let (link, far) = rig.unix();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let watch = rig.driver.watch(read, Watched::Pipe).unwrap();
        if round % 2 == 0 {
            rig.send(link, &vec![1; 300_000]);
        }
        if round % 3 == 0 {
            write_all(&far, b"in flight");
        }
        if round % 5 == 0 {
            rig.pass(Patience::Poll);
        }
        if round % 7 == 0 {
            drop(far);
        }
        rig.driver.close(link, if round % 4 == 0 { Flush::Queued } else { Flush::Discard });
        if round % 11 == 0 {
            drop(write);
        }
        rig.driver.unwatch(watch);
        if round % 13 == 0 {
            rig.pass(Patience::Poll);
        }
        for event in rig.events.drain(..) {
            if let Event::Received { chunk, .. } = event {
                rig.driver.recycle(chunk);
            }
        }
    }
    while descriptors() != before {
        rig.pass(Patience::Sleep(Some(Duration::from_millis(20))));
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    rig.driver.listen(listener.into()).unwrap();
    let far = TcpStream::connect(address).unwrap();
    let Event::Accepted { socket, .. } = rig.next() else { panic!("a connection expected") };
    drop((far, socket));
    rig.driver.stop_listening();
    while descriptors() != before {
        rig.pass(Patience::Sleep(Some(Duration::from_millis(20))));
    }
}

pub(super) fn dropping_a_driver_ends_its_streams(rig: &mut Rig) {
    for _ in 0..20 {
        let mut other = rig.another();
        let (_, far) = other.unix();
        let (busy, far2) = other.unix();
        let (near, far3) = UnixStream::pair().unwrap();
        let _holder = near.try_clone().unwrap();
        other.driver.attach(near.into()).unwrap();
        other.send(busy, &vec![1; 1 << 20]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        other.driver.listen(listener.into()).unwrap();
        other.pass(Patience::Poll);
        let (read, _write) = rustix::pipe::pipe().unwrap();
        other.driver.watch(read, Watched::Pipe).unwrap();
        drop(other);
        assert!(read_all(far).is_empty() && read_all(far3).is_empty());
        assert!(read_all(far2).iter().all(|byte| *byte == 1));
    }
}
