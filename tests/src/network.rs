//! Networks that can be broken: each place has a namespace of its own, all hang on one bridge in another, and nothing of it
//! touches the machine's own network. A line is cut where it arrives (so in one direction, or in both), loses some of what
//! it carries, or is made slow. Needs root, `ip`, `nft` and, for slow lines, `tc`.
//!
//! Namespaces carry the process id of their maker in their names; those whose maker is gone are removed by the next one.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where namespaces with a name lie.
const NAMESPACES: &str = "/run/netns";
/// What the names of ours begin with, before the process id.
const PREFIX: &str = "fairlock-";
/// The table with the rules of what is broken; a place has no other.
const TABLE: &str = "add table inet broken
add chain inet broken arriving { type filter hook input priority 0; }
";

/// A network with some places.
#[derive(Debug)]
pub struct Network {
    bridge: String,
    places: Vec<Place>,
}

/// One place: a machine, as far as the network goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    namespace: String,
    address: Ipv4Addr,
}

impl Network {
    /// Why networks cannot be made here; `None` when they can.
    pub fn is_impossible_because() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("networks are made by root alone".to_owned());
        }
        let is_there =
            |program: &str| Command::new(program).arg("-V").output().is_ok_and(|it| it.status.success());
        if let Some(program) = ["ip", "nft", "tc"].into_iter().find(|program| !is_there(program)) {
            return Some(format!("`{program}` is not installed (Debian: apt-get install iproute2 nftables)"));
        }
        let name = format!("{PREFIX}{}-try", std::process::id());
        let made = attempt("ip", &["netns", "add", &name]);
        let _ = attempt("ip", &["netns", "del", &name]);
        made.err()
    }

    /// A network with so many places, all of which reach each other.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(places: u8) -> Network {
        // Only its uniqueness matters; pairs with nothing.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        sweep();
        let base = format!("{PREFIX}{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut network = Network { bridge: format!("{base}-bridge"), places: Vec::new() };
        run("ip", &["netns", "add", &network.bridge]);
        let bridge = network.bridge.clone();
        run("ip", &["-n", &bridge, "link", "add", "bridge0", "type", "bridge"]);
        run("ip", &["-n", &bridge, "link", "set", "bridge0", "up"]);
        for number in 1..=places {
            let place =
                Place { namespace: format!("{base}-{number}"), address: Ipv4Addr::new(10, 0, 0, number) };
            run("ip", &["netns", "add", &place.namespace]);
            // Listed at once, so that whatever fails from here on is cleaned up.
            network.places.push(place.clone());
            place.plug(&bridge, number);
        }
        network
    }

    /// One of its places.
    pub fn place(&self, index: usize) -> &Place {
        &self.places[index]
    }

    /// All its places.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// What `from` sends does not arrive at `to` any more; the other direction is as it was.
    pub fn cut(&self, from: usize, to: usize) {
        self.places[to].rule(&format!("ip saddr {} drop", self.places[from].address));
    }

    /// Of what `from` sends, so much in a hundred does not arrive at `to`.
    pub fn lose(&self, from: usize, to: usize, percent: u32) {
        let from = self.places[from].address;
        self.places[to].rule(&format!("ip saddr {from} numgen random mod 100 < {percent} drop"));
    }

    /// What a place sends leaves it no faster than this.
    pub fn slow(&self, place: usize, kilobits: u32) {
        let (namespace, rate) = (&self.places[place].namespace, format!("{kilobits}kbit"));
        let queue = ["burst", "4k", "latency", "400ms"];
        let set = ["-n", namespace, "qdisc", "replace", "dev", "e0", "root", "tbf", "rate", &rate];
        run("tc", &[&set[..], &queue].concat());
    }

    /// Everything is whole again.
    pub fn heal(&self) {
        for place in &self.places {
            place.nft(&format!("flush ruleset\n{TABLE}"));
            let _ = attempt("tc", &["-n", &place.namespace, "qdisc", "del", "dev", "e0", "root"]);
        }
    }
}

impl Place {
    /// Its address with a port.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), port)
    }

    /// Its namespace.
    pub fn file(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.namespace)
    }

    /// Joins it to the bridge.
    fn plug(&self, bridge: &str, number: u8) {
        let (end, address) = (format!("p{number}"), format!("{}/24", self.address));
        let own = &self.namespace;
        run("ip", &["-n", bridge, "link", "add", &end, "type", "veth", "peer", "name", "e0", "netns", own]);
        run("ip", &["-n", bridge, "link", "set", &end, "master", "bridge0", "up"]);
        run("ip", &["-n", own, "addr", "add", &address, "dev", "e0"]);
        run("ip", &["-n", own, "link", "set", "e0", "up"]);
        run("ip", &["-n", own, "link", "set", "lo", "up"]);
        self.nft(TABLE);
    }

    fn rule(&self, rule: &str) {
        self.nft(&format!("add rule inet broken arriving {rule}"));
    }

    fn nft(&self, rules: &str) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "nft", "-f", "-"]).stdin(Stdio::piped());
        let mut child = command.spawn().expect("`ip` was there before");
        child.stdin.take().expect("piped").write_all(rules.as_bytes()).expect("nft reads its rules");
        assert!(child.wait().expect("it is our child").success(), "nft refuses {rules:?}");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let all = self.places.iter().map(|place| &place.namespace).chain([&self.bridge]);
        for namespace in all {
            let _ = attempt("ip", &["netns", "del", namespace]);
        }
    }
}

/// Does something within a network; the sockets it makes belong there for ever, and threads it starts are there, too.
pub fn within<T: Send>(network: &Path, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(network).expect("a namespace is a file");
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("whoever may make a namespace may enter it");
            work()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Removes what test runs left behind that were killed.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(NAMESPACES) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = attempt("ip", &["netns", "del", &name]);
        }
    }
}

fn attempt(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{program} {}: {said}", arguments.join(" "))) }
}

fn run(program: &str, arguments: &[&str]) {
    attempt(program, arguments).unwrap_or_else(|error| panic!("{error}"));
}
