//! Places for the parties of a measurement: each has a network namespace of its own, all hang on one bridge in another, and
//! nothing of it touches the machine's own network. Without root or `ip` they are addresses of loopback, and a heading says so.
//!
//! The names of namespaces carry the process id of their maker; those whose maker is gone are removed by the next one.

use crate::launch;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where namespaces with a name lie.
const NAMESPACES: &str = "/run/netns";
/// What the names of ours begin with, before the process id.
const PREFIX: &str = "fairlock-";

/// All places of a run.
#[derive(Debug)]
pub struct Network {
    /// The places.
    pub places: Vec<Place>,
    /// Namespaces to remove.
    namespaces: Vec<String>,
    /// Why these are addresses of loopback; `None`: they are namespaces.
    pub loopback_because: Option<String>,
}

/// One place: a machine, as far as the network goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file of its namespace; `None`: the machine's own.
    pub namespace: Option<PathBuf>,
    address: Ipv4Addr,
}

impl Place {
    /// Its address with a port.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), port)
    }

    /// Moves the calling thread, and what it starts from now on, there.
    ///
    /// # Errors
    /// What the system says.
    pub fn enter(&self) -> io::Result<()> {
        self.namespace.as_deref().map_or(Ok(()), launch::enter)
    }
}

impl Network {
    /// So many places that all reach each other.
    pub fn new(places: u8) -> Network {
        sweep();
        let mut network = Network { places: Vec::new(), namespaces: Vec::new(), loopback_because: None };
        if let Err(reason) = network.build(places) {
            network.clear();
            let [high, low] = u16::try_from(std::process::id() % 0xFFFF).unwrap_or(1).to_be_bytes();
            let place = |number| Place { namespace: None, address: Ipv4Addr::new(127, high, low, number) };
            network.places = (1..=places).map(place).collect();
            network.loopback_because = Some(reason);
        }
        network
    }

    /// What the places are, for a heading.
    pub fn kind(&self) -> String {
        match &self.loopback_because {
            None => "network namespaces on one bridge".to_owned(),
            Some(reason) => format!("loopback, because there are no network namespaces: {}", reason.trim()),
        }
    }

    fn build(&mut self, places: u8) -> Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Err("they are made by root alone".to_owned());
        }
        let base = format!("{PREFIX}{}", std::process::id());
        let bridge = format!("{base}-bridge");
        self.add(&bridge)?;
        ip(&["-n", &bridge, "link", "add", "name", "bridge0", "type", "bridge"])?;
        ip(&["-n", &bridge, "link", "set", "dev", "bridge0", "up"])?;
        for number in 1..=places {
            let name = format!("{base}-{number}");
            self.add(&name)?;
            let address = Ipv4Addr::new(10, 0, 0, number);
            plug(&name, &bridge, number, address)?;
            self.places.push(Place { namespace: Some(Path::new(NAMESPACES).join(name)), address });
        }
        Ok(())
    }

    fn add(&mut self, name: &str) -> Result<(), String> {
        ip(&["netns", "add", name])?;
        self.namespaces.push(name.to_owned());
        Ok(())
    }

    fn clear(&mut self) {
        self.places.clear();
        for name in self.namespaces.drain(..) {
            if let Err(error) = ip(&["netns", "del", &name]) {
                eprintln!("{error}");
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Joins a namespace to the bridge.
fn plug(name: &str, bridge: &str, number: u8, address: Ipv4Addr) -> Result<(), String> {
    let (end, address) = (format!("p{number}"), format!("{address}/24"));
    ip(&["-n", bridge, "link", "add", "name", &end, "type", "veth", "peer", "name", "e0", "netns", name])?;
    ip(&["-n", bridge, "link", "set", "dev", &end, "master", "bridge0", "up"])?;
    ip(&["-n", name, "addr", "add", &address, "dev", "e0"])?;
    ip(&["-n", name, "link", "set", "dev", "e0", "up"])?;
    ip(&["-n", name, "link", "set", "dev", "lo", "up"])
}

/// Removes what runs left behind that were killed.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(NAMESPACES) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {said}", arguments.join(" "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where namespaces can be made they are gone afterwards; elsewhere every place has an address of its own.
    #[test]
    fn places_differ_and_leave_nothing_behind() {
        let network = Network::new(2);
        assert_ne!(network.places[0].at(1), network.places[1].at(1));
        let files: Vec<PathBuf> = network.places.iter().filter_map(|place| place.namespace.clone()).collect();
        assert!(files.iter().all(|file| file.exists()), "{}", network.kind());
        assert_eq!(files.is_empty(), network.loopback_because.is_some());
        drop(network);
        assert!(!files.iter().any(|file| file.exists()));
    }
}
