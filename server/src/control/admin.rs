//! A very small HTTP/1.1 server for /metrics and /healthz: GET and HEAD, one request a connection, everything bounded.
//!
//! Written by hand because it is less than the smallest crate would bring: no bodies, no keep-alive, no chunks. It lives
//! in the poll loop of the control thread and never blocks it; who asks slowly is dropped, who asks wrongly is told.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use fairlock_protocol::Tick;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::accepting::Acceptor;

/// Longest request head in bytes.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// From accept to the last byte of the answer.
const EXCHANGE_TIME: Duration = Duration::from_secs(2);
/// Exchanges at one time; the oldest goes first.
const EXCHANGES_MAX: usize = 64;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Number and words of the status line.
    pub(super) status: &'static str,
    /// What the body is.
    pub(super) kind: &'static str,
    /// The body.
    pub(super) body: String,
}

impl Answer {
    /// A line of text.
    pub(super) fn text(status: &'static str, body: impl Into<String>) -> Answer {
        Answer { status, kind: "text/plain; charset=utf-8", body: body.into() }
    }
}

/// The listener and its exchanges, oldest first.
#[derive(Debug)]
pub(super) struct Admin {
    pub(super) acceptor: Acceptor,
    exchanges: BTreeMap<u64, Exchange>,
    last: u64,
}

/// One request and its answer.
#[derive(Debug)]
struct Exchange {
    socket: OwnedFd,
    until: Tick,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The head is not whole.
    Asking(Vec<u8>),
    /// These bytes of the answer are not written yet.
    Answering(Vec<u8>),
    /// The answer is written: wait for the peer's end, because closing with unread input would reset the connection and
    /// might destroy the answer on its way.
    Lingering,
}

impl Admin {
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new(listener: TcpListener) -> io::Result<Admin> {
        Ok(Admin { acceptor: Acceptor::new(listener.into())?, exchanges: BTreeMap::new(), last: 0 })
    }

    /// Accepts who waits.
    pub(super) fn accept(&mut self, now: Tick) {
        for socket in self.acceptor.accept(now) {
            if self.exchanges.len() >= EXCHANGES_MAX {
                self.exchanges.pop_first();
            }
            self.last += 1;
            let exchange =
                Exchange { socket, until: now.after(EXCHANGE_TIME), stage: Stage::Asking(Vec::new()) };
            self.exchanges.insert(self.last, exchange);
        }
    }

    /// Goes on with one exchange; `look_up` answers the request for a path.
    pub(super) fn serve(&mut self, id: u64, look_up: impl FnOnce(&str) -> Answer) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        if exchange.advance(look_up).is_err() {
            self.exchanges.remove(&id);
        }
    }

    /// Ends exchanges that had their time.
    pub(super) fn expire(&mut self, now: Tick) {
        while let Some(oldest) = self.exchanges.first_entry()
            && now >= oldest.get().until
        {
            oldest.remove();
        }
    }

    /// When to call [`Admin::expire`].
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        self.exchanges.first_key_value().map(|(_, exchange)| exchange.until)
    }

    /// What to wait on, and for what.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (u64, BorrowedFd<'_>, PollFlags)> {
        self.exchanges.iter().map(|(id, exchange)| {
            let answering = matches!(exchange.stage, Stage::Answering(_));
            (*id, exchange.socket.as_fd(), if answering { PollFlags::OUT } else { PollFlags::IN })
        })
    }
}

/// The exchange is over.
struct Over;

impl Exchange {
    fn advance(&mut self, look_up: impl FnOnce(&str) -> Answer) -> Result<(), Over> {
        if let Stage::Asking(head) = &mut self.stage {
            if !read_head(&self.socket, head)? {
                return Ok(());
            }
            self.stage = Stage::Answering(respond(head, look_up));
        }
        if let Stage::Answering(bytes) = &mut self.stage {
            while !bytes.is_empty() {
                match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                    Ok(sent) => drop(bytes.drain(..sent)),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(_) => return Err(Over),
                }
            }
            rustix::net::shutdown(&self.socket, Shutdown::Write).map_err(|_| Over)?;
            self.stage = Stage::Lingering;
        }
        let mut ignored = [0_u8; 4096];
        loop {
            match rustix::net::recv(&self.socket, &mut ignored, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Over),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(Over),
            }
        }
    }
}

/// Takes what has arrived; `true` when the head is whole or longer than allowed.
fn read_head(socket: &OwnedFd, head: &mut Vec<u8>) -> Result<bool, Over> {
    let mut piece = [0_u8; 4096];
    loop {
        match rustix::net::recv(socket, &mut piece, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(Over),
            Ok((bytes, _)) => head.extend_from_slice(piece.get(..bytes).unwrap_or_default()),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Ok(false),
            Err(_) => return Err(Over),
        }
        let whole =
            head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n");
        if whole || head.len() > REQUEST_BYTES_MAX {
            return Ok(true);
        }
    }
}

/// The bytes of the answer to a request head.
fn respond(head: &[u8], look_up: impl FnOnce(&str) -> Answer) -> Vec<u8> {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = core::str::from_utf8(line).unwrap_or_default().trim_end_matches('\r');
    let mut words = line.split(' ');
    let request = (words.next(), words.next(), words.next(), words.next());
    let mut with_body = true;
    let answer = match request {
        _ if head.len() > REQUEST_BYTES_MAX => {
            Answer::text("431 Request Header Fields Too Large", "the request is too long\n")
        }
        (Some(method @ ("GET" | "HEAD")), Some(target), Some("HTTP/1.0" | "HTTP/1.1"), None) => {
            with_body = method == "GET";
            look_up(target.split('?').next().unwrap_or_default())
        }
        (Some(_), Some(_), Some("HTTP/1.0" | "HTTP/1.1"), None) => {
            Answer::text("405 Method Not Allowed", "only GET and HEAD are served here\n")
        }
        _ => Answer::text("400 Bad Request", "this is not an HTTP/1.1 request\n"),
    };
    let Answer { status, kind, body } = answer;
    let mut out = String::with_capacity(256 + body.len());
    let length = body.len();
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    write!(
        out,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    .expect("a string takes it");
    if with_body {
        out.push_str(&body);
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(head: &str) -> String {
        String::from_utf8(respond(head.as_bytes(), |path| Answer::text("200 OK", format!("<{path}>"))))
            .unwrap()
    }

    #[test]
    fn a_request_is_answered_by_path_whatever_its_query() {
        let answer = ask("GET /metrics?x=1 HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("Content-Length: 10\r\n") && answer.ends_with("\r\n\r\n</metrics>"));
        assert!(answer.contains("Connection: close\r\n"));
        let head = ask("HEAD /metrics HTTP/1.0\n\n");
        assert!(head.contains("Content-Length: 10\r\n") && head.ends_with("\r\n\r\n"));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for (head, status) in [
            ("POST / HTTP/1.1\r\n\r\n", "405"),
            ("GET / HTTP/2\r\n\r\n", "400"),
            ("GET /\r\n\r\n", "400"),
            ("GET / HTTP/1.1 x\r\n\r\n", "400"),
            ("\r\n\r\n", "400"),
        ] {
            assert!(ask(head).starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        }
        assert!(ask(&"x".repeat(REQUEST_BYTES_MAX + 1)).starts_with("HTTP/1.1 431 "));
    }
}
