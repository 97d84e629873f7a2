//! The limit of everything remote: a peer that answers each frame with one of the right length, and does nothing else.
//! It is a process of its own, like the server it stands beside: the same program, started with the word `echo`.
//!
//! It looks at the length and the kind of a frame only, to know how long the answer of a server would be.

use crate::cores;
use crate::process::Measured;
use crate::stream::{Door, Manner, Stream};
use fairlock_protocol::wire::HEADER_BYTES;
use fairlock_protocol::{reply, request};
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

/// The word that makes a benchmark program an echo.
const WORD: &str = "echo";
/// Bytes of a GRANTED and of a RELEASED frame.
const GRANTED_BYTES: usize = HEADER_BYTES + 34;
const RELEASED_BYTES: usize = HEADER_BYTES + 4;

/// A running echo.
#[derive(Debug)]
pub struct Echo {
    /// Its process.
    pub process: Measured,
    /// Where it listens.
    pub door: Door,
}

impl Echo {
    /// Starts one on a core. `socket`: listen there and not on TCP.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(core: usize, manner: Manner, socket: Option<&Path>) -> io::Result<Echo> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(WORD).arg(manner.name()).stdout(Stdio::piped());
        if let Some(path) = socket {
            command.arg(path);
        }
        let mut process = Measured::new(cores::born_on(core, || command.spawn())?);
        let stdout = process.child().stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let door = match socket {
            Some(path) => Door::Unix(path.to_path_buf()),
            None => Door::Tcp(line.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?),
        };
        Ok(Echo { process, door })
    }
}

/// Becomes an echo when the command line says so; the program ends then.
pub fn perhaps() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_none_or(|word| word != WORD) {
        return;
    }
    let manner = match words.get(1).map(String::as_str) {
        Some("spinning") => Manner::Spinning,
        _ => Manner::Sleeping,
    };
    let outcome = serve(manner, words.get(2).map(Path::new));
    std::process::exit(i32::from(outcome.is_err()));
}

fn serve(manner: Manner, socket: Option<&Path>) -> io::Result<()> {
    let mut stream = if let Some(path) = socket {
        let listener = UnixListener::bind(path)?;
        println!("ready");
        io::stdout().flush()?;
        let (stream, _) = listener.accept()?;
        std::fs::remove_file(path)?;
        Stream::Unix(stream)
    } else {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        println!("{}", listener.local_addr()?);
        io::stdout().flush()?;
        Stream::Tcp(listener.accept()?.0)
    };
    stream.waits(manner)?;
    let mut inbound = vec![0_u8; 512 * 1024];
    let (mut filled, mut out) = (0, Vec::new());
    loop {
        let count = stream.take(&mut inbound[filled..])?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        let taken = answer(&inbound[..filled], &mut out);
        inbound.copy_within(taken..filled, 0);
        filled -= taken;
        stream.put(&out)?;
        out.clear();
    }
}

/// Answers every whole frame, and says how many bytes they took.
fn answer(mut inbound: &[u8], out: &mut Vec<u8>) -> usize {
    let mut taken = 0;
    while let Some((&length, rest)) = inbound.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(length) as usize;
        let Some((&kind, _)) = rest.split_first() else { break };
        let Some(next) = inbound.get(length..) else { break };
        let (bytes, kind) = if kind == request::kind::ACQUIRE {
            (GRANTED_BYTES, reply::kind::GRANTED)
        } else {
            (RELEASED_BYTES, reply::kind::RELEASED)
        };
        let start = out.len();
        out.resize(start + bytes, 0);
        out[start..start + 4].copy_from_slice(&u32::try_from(bytes).unwrap_or(0).to_le_bytes());
        out[start + 4] = kind;
        taken += length;
        inbound = next;
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlock_protocol::{GrantId, Reply, Request, RequestId};

    #[test]
    fn an_answer_is_as_long_as_a_servers() {
        let mut asked = Vec::new();
        let grant = GrantId::from_raw(1).unwrap();
        Request::Release(grant).encode(RequestId(1), 0, &mut asked);
        let (mut said, mut real) = (Vec::new(), Vec::new());
        assert_eq!(answer(&asked, &mut said), asked.len());
        Reply::Released { remaining: 0 }.encode(RequestId(1), 0, &mut real);
        assert_eq!(said.len(), real.len());
        assert_eq!(answer(&asked[..asked.len() - 1], &mut said), 0);
    }
}
