//! Out of buffers or out of descriptors: nothing is lost, nobody hangs, and it goes on afterwards.

use std::collections::HashMap;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::*;

pub(super) fn more_senders_than_buffers_lose_nothing(rig: &mut Rig) {
    let senders: Vec<(LinkId, UnixStream)> = (0..600).map(|_| rig.unix()).collect();
    let message = numbers(9000);
    for (_, far) in &senders {
        write_all(far, &message);
    }
    let mut held = Vec::new();
    let mut got: HashMap<LinkId, Vec<u8>> = HashMap::new();
    for round in 0..3 {
        // The caller keeps everything until no buffer is left, and then a while longer.
        while held.len() < usize::from(CHUNKS) {
            let before = held.len();
            match rig.next() {
                Event::Received { link, chunk } => held.push((link, chunk)),
                other => panic!("bytes expected, not {other:?}"),
            }
            assert!(held.len() > before);
        }
        rig.silent();
        for (link, chunk) in held.drain(..) {
            got.entry(link).or_default().extend_from_slice(rig.driver.bytes(&chunk));
            rig.driver.recycle(chunk);
        }
        assert!(round < 3);
    }
    let all = message.len() * senders.len();
    while got.values().map(Vec::len).sum::<usize>() < all {
        let (link, bytes) = rig.received();
        got.entry(link).or_default().extend(bytes);
    }
    assert!(senders.iter().all(|(link, _)| got[link] == message));
    rig.silent();
}

pub(super) fn a_starved_link_that_is_closed_is_forgotten(rig: &mut Rig) {
    let senders: Vec<(LinkId, UnixStream)> = (0..300).map(|_| rig.unix()).collect();
    for (_, far) in &senders {
        write_all(far, b"one chunk each");
    }
    let mut held = Vec::new();
    while held.len() < usize::from(CHUNKS) {
        if let Event::Received { link, chunk } = rig.next() {
            held.push((link, chunk));
        }
    }
    rig.settle();
    for (link, _) in &senders {
        rig.driver.close(*link, Flush::Discard);
    }
    let (last, far) = rig.unix();
    write_all(&far, b"still served");
    for (_, chunk) in held {
        assert_eq!(rig.driver.bytes(&chunk), b"one chunk each", "a chunk outlives its link");
        rig.driver.recycle(chunk);
    }
    assert_eq!(rig.receive(last, 12), b"still served");
    rig.silent();
}

pub(super) fn without_descriptors_peers_see_an_end_and_later_ones_are_served(rig: &mut Rig) {
    if !is_alone("without_descriptors_peers_see_an_end_and_later_ones_are_served", rig) {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Clients' descriptors exist before the limit comes down.
    let mut clients: Vec<socket2::Socket> = (0..40)
        .map(|_| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap())
        .collect();
    let mut late = clients.split_off(35);
    let highest = std::os::fd::AsRawFd::as_raw_fd(late.last().unwrap());
    let limit = getrlimit(Resource::Nofile);
    let low = rustix::process::Rlimit { current: Some(u64::try_from(highest).unwrap() + 6), ..limit };
    setrlimit(Resource::Nofile, low).unwrap();
    // Now, because the kernel keeps the limit it found when a multishot accept was armed.
    rig.driver.listen(listener.into()).unwrap();
    for client in &clients {
        client.connect(&address.into()).unwrap();
    }
    let patience = rig.another_thread_ends(clients);
    let mut accepted = Vec::new();
    for event in rig.events.drain(..) {
        match event {
            Event::Accepted { socket, .. } => accepted.push(socket),
            other => panic!("{other:?}"),
        }
    }
    assert!(!accepted.is_empty() && accepted.len() < 10, "{}", accepted.len());
    assert_eq!(patience, 35 - accepted.len(), "everybody else saw an end");
    accepted.clear();
    let client = late.pop().unwrap();
    client.connect(&address.into()).unwrap();
    assert!(matches!(rig.next(), Event::Accepted { .. }), "served again");
    setrlimit(Resource::Nofile, limit).unwrap();
}

impl Rig {
    /// Drives until nothing changes any more and counts the clients that saw an end.
    fn another_thread_ends(&mut self, clients: Vec<socket2::Socket>) -> usize {
        let count = clients.len();
        let mut ended = 0;
        let mut open = clients;
        while ended + self.events.len() < count {
            self.pass(Patience::Sleep(Some(Duration::from_millis(20))));
            open.retain(|client| {
                client.set_nonblocking(true).unwrap();
                let outcome = (&mut &*client).read(&mut [0; 1]);
                let is_open = matches!(&outcome, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
                ended += usize::from(!is_open);
                is_open
            });
            // Their descriptors stay taken, so that the shortage lasts.
        }
        std::mem::forget(open);
        ended
    }
}
