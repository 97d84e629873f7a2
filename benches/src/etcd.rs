//! A real etcd of several members: the register of the cells that are measured, and the peer whose own fail-over stands
//! beside theirs. It is spoken to through its JSON gateway, over a connection that is kept.

use crate::launch;
use crate::network::Place;
use crate::process::Measured;
use crate::scratch::Scratch;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Ports of a member, for clients and for the other members.
const PORTS: (u16, u16) = (2379, 2380);
/// Longest wait for a start.
const START_TIME: Duration = Duration::from_secs(30);
/// Longest wait for an answer while it starts.
const PATIENCE: Duration = Duration::from_secs(2);

/// The members of one etcd; dropping it kills them.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    scratch: Scratch,
}

#[derive(Debug)]
struct Member {
    name: String,
    place: Place,
    process: Option<Measured>,
}

impl Etcd {
    /// Starts one with a member at each place, and waits until it has a leader.
    ///
    /// # Errors
    /// It is not installed, or does not come up.
    pub fn start(places: &[Place]) -> io::Result<Etcd> {
        let member = |(at, place): (usize, &Place)| Member {
            name: format!("m{at}"),
            place: place.clone(),
            process: None,
        };
        let members = places.iter().enumerate().map(member).collect();
        let mut etcd = Etcd { members, scratch: Scratch::new()? };
        for at in 0..etcd.members.len() {
            etcd.spawn(at)?;
        }
        etcd.await_leader()?;
        Ok(etcd)
    }

    fn spawn(&mut self, at: usize) -> io::Result<()> {
        let url = |place: &Place, port| format!("http://{}", place.at(port));
        let all: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{}={}", member.name, url(&member.place, PORTS.1)))
            .collect();
        let member = &mut self.members[at];
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.scratch.join(&format!("{}.log", member.name)))?;
        let mut command = launch::command("etcd", member.place.namespace.as_deref())?;
        command.args(["--name", &member.name, "--initial-cluster", &all.join(",")]);
        command.arg("--data-dir").arg(self.scratch.join(&member.name));
        let (client, peer) = (url(&member.place, PORTS.0), url(&member.place, PORTS.1));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        // What a shell says to etcd is not for this one.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        member.process = Some(Measured::new(command.spawn()?));
        Ok(())
    }

    /// Waits until every member names the same leader; which one that is.
    ///
    /// # Errors
    /// That takes too long.
    pub fn await_leader(&mut self) -> io::Result<usize> {
        let until = Instant::now() + START_TIME;
        while Instant::now() < until {
            let views: Option<Vec<(String, String)>> = self.members.iter().map(Member::view).collect();
            if let Some(views) = views
                && let Some(leader) = views.iter().position(|(own, leader)| own == leader)
                && views.iter().all(|(_, named)| *named == views[leader].0)
            {
                return Ok(leader);
            }
            if self.members.iter_mut().any(Member::has_ended) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(io::Error::other("etcd does not come up (Debian: apt-get install etcd-server)"))
    }

    /// Kills a member as a crash would.
    pub fn kill(&mut self, at: usize) {
        self.members[at].process = None;
    }

    /// Starts a member that was killed, on the same data.
    ///
    /// # Errors
    /// What the system says.
    pub fn restart(&mut self, at: usize) -> io::Result<()> {
        self.spawn(at)
    }

    /// Where its clients dial.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.place.at(PORTS.0)).collect()
    }

    /// It as the register of a cell.
    pub fn url(&self) -> String {
        let all: Vec<String> = self.addresses().iter().map(ToString::to_string).collect();
        format!("etcd://{}", all.join(","))
    }
}

impl Member {
    /// Its own id, and whom it takes for the leader.
    fn view(&self) -> Option<(String, String)> {
        let mut gateway = Gateway::new(vec![self.place.at(PORTS.0)], PATIENCE);
        let said = gateway.post("/v3/maintenance/status", &json!({})).ok()?;
        let text = |pointer| Some(said.pointer(pointer)?.as_str()?.to_owned());
        Some((text("/header/member_id")?, text("/leader")?))
    }

    fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| !matches!(process.child().try_wait(), Ok(None)))
    }
}

/// A client of it that goes on to the next member when one does not answer.
#[derive(Debug)]
pub struct Gateway {
    addresses: Vec<SocketAddr>,
    at: usize,
    patience: Duration,
    stream: Option<BufReader<TcpStream>>,
}

impl Gateway {
    /// One that waits so long for each answer.
    pub fn new(addresses: Vec<SocketAddr>, patience: Duration) -> Gateway {
        Gateway { addresses, at: 0, patience, stream: None }
    }

    /// Asks the present member.
    ///
    /// # Errors
    /// It does not answer, or with an error; the next one is asked next time.
    pub fn post(&mut self, path: &str, body: &Value) -> io::Result<Value> {
        let said = self.exchange(path, &body.to_string());
        if said.is_err() {
            self.stream = None;
            self.at = (self.at + 1) % self.addresses.len();
        }
        said
    }

    /// Writes a value if the key was never written, else over it: a transaction with one comparison, like that of a register.
    ///
    /// # Errors
    /// As [`Gateway::post`].
    pub fn swap(&mut self, key: &str, value: &str) -> io::Result<()> {
        let (key, value) = (base64(key), base64(value));
        let put = json!([{ "request_put": { "key": key, "value": value } }]);
        let compare = json!([{ "key": key, "target": "VERSION", "result": "EQUAL", "version": "0" }]);
        let transaction = json!({ "compare": compare, "success": put, "failure": put });
        self.post("/v3/kv/txn", &transaction).map(drop)
    }

    fn exchange(&mut self, path: &str, body: &str) -> io::Result<Value> {
        let address = self.addresses[self.at];
        if self.stream.is_none() {
            let stream = TcpStream::connect_timeout(&address, self.patience)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(self.patience))?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.get_mut().write_all(request.as_bytes())?;
        read_answer(stream)
    }
}

/// Reads one answer, which has a length and is a success.
fn read_answer(stream: &mut impl BufRead) -> io::Result<Value> {
    let (mut status, mut length) = (String::new(), None);
    if stream.read_line(&mut status)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim().split_once(':') {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse::<usize>().ok();
            }
            Some(_) => {}
        }
    }
    let mut body = vec![0; length.ok_or_else(|| io::Error::other("an answer without a length"))?];
    stream.read_exact(&mut body)?;
    if !status.contains(" 200 ") {
        return Err(io::Error::other(format!("{} {}", status.trim(), String::from_utf8_lossy(&body))));
    }
    Ok(serde_json::from_slice(&body)?)
}

/// The form in which the gateway takes keys and values.
fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for piece in text.as_bytes().chunks(3) {
        let bits = piece.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - piece.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= piece.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_form_the_gateway_takes() {
        assert_eq!(
            ["", "a", "ab", "abc", "fairlock"].map(base64),
            ["", "YQ==", "YWI=", "YWJj", "ZmFpcmxvY2s="]
        );
    }

    #[test]
    fn an_answer_is_read_to_its_length_and_a_failure_is_none() {
        let mut two: &[u8] =
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read_answer(&mut two).expect("the first is sound"), json!({}));
        assert!(read_answer(&mut two).is_err());
        assert!(read_answer(&mut two).is_err());
    }
}
