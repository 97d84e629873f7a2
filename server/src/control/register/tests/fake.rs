//! An HTTP server that says what a test wants, and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;

/// What was asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The path.
    pub(super) path: String,
    /// The head, as it came.
    pub(super) head: String,
    /// The body.
    pub(super) body: Value,
}

/// What is said.
#[derive(Debug)]
pub(super) enum Say {
    /// This status and this JSON.
    Json(u16, Value),
    /// These bytes.
    Raw(String),
    /// Lines of a stream, in chunks; then it stays open.
    Stream(Vec<Value>),
    /// Nothing, and the connection stays open.
    Nothing,
    /// Nothing, and the connection ends.
    End,
}

/// A running server.
#[derive(Debug)]
pub(super) struct Fake {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Says what this says.
    pub(super) fn saying(mut say: impl FnMut(&Asked) -> Say + Send + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, ended) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(AtomicBool::new(false)));
        let (log, end) = (Arc::clone(&asked), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming().flatten() {
                // Relaxed: the connection that wakes this thread comes after the store.
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let Some(request) = read(&stream) else { continue };
                log.lock().unwrap().push(request.clone());
                if let Some(stream) = answer(stream, say(&request)) {
                    open.push(stream);
                }
            }
        });
        Fake { address, asked, ended, thread: Some(thread) }
    }

    /// Always says the same.
    pub(super) fn always(status: u16, json: Value) -> Fake {
        Fake::saying(move |_| Say::Json(status, json.clone()))
    }

    /// Always says these bytes.
    pub(super) fn raw(text: &'static str) -> Fake {
        Fake::saying(move |_| Say::Raw(text.to_owned()))
    }

    /// Where it is.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The paths of that.
    pub(super) fn paths(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.path).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the fake has failed");
    }
}

/// One request.
fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let path = head.split(' ').nth(1)?.to_owned();
    Some(Asked { path, head, body: serde_json::from_slice(&body).unwrap_or_default() })
}

/// Says it; gives the connection back if it stays open.
fn answer(mut stream: TcpStream, say: Say) -> Option<TcpStream> {
    // Whoever asked may be gone.
    match say {
        Say::End => None,
        Say::Nothing => Some(stream),
        Say::Raw(text) => {
            let _ = stream.write_all(text.as_bytes());
            None
        }
        Say::Json(status, json) => {
            let body = json.to_string();
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
            None
        }
        Say::Stream(lines) => {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for line in lines {
                let line = format!("{line}\n");
                let _ = write!(stream, "{:x}\r\n{line}\r\n", line.len());
            }
            Some(stream)
        }
    }
}
