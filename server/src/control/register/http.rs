//! As much of HTTP/1.1 as one POST needs: a request with a length, an answer with a length, in chunks, or up to the end.
//!
//! No library, because a connection here carries one request and closes, follows no redirect, and needs a limit of its
//! own on every wait, on lines, headers and bodies. What arrives is hostile until it is parsed.

use std::io::{self, BufRead, Read};

/// Longest line of a head, in bytes.
const LINE_BYTES_MAX: u64 = 16 * 1024;
/// Most header lines.
const HEADERS_MAX: usize = 100;
/// Longest answer that is read whole, in bytes: etcd's own limit for a value.
pub(super) const BODY_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// A request, as it is sent.
pub(super) fn request(method: &str, host: &str, path: &str, token: Option<&str>, body: &str) -> Vec<u8> {
    let length = body.len();
    let token = token.map_or(String::new(), |token| format!("Authorization: {token}\r\n"));
    // `hasleader` makes a member that has lost its leader say so at once instead of waiting for one.
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAccept: application/json\r\n\
        Content-Type: application/json\r\nGrpc-Metadata-hasleader: true\r\n{token}Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// So many bytes of the present chunk are left; the line end behind each chunk is read with the next size.
    Chunk(u64),
    /// The body goes on up to the end of the connection.
    UntilEnd,
    /// Nothing is left.
    Over,
}

/// An answer whose head was read.
#[derive(Debug)]
pub(super) struct Response<R> {
    /// The status code.
    pub(super) status: u16,
    reader: R,
    framing: Framing,
    /// The first chunk has no line end before its size.
    first_chunk: bool,
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A line without its end.
fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        let ended = bytes.len() as u64 + 1 < LINE_BYTES_MAX;
        return Err(if ended {
            io::ErrorKind::UnexpectedEof.into()
        } else {
            malformed("a line without end")
        });
    }
    bytes.pop_if(|byte| *byte == b'\r');
    String::from_utf8(bytes).map_err(|_| malformed("a line that is not text"))
}

impl<R: BufRead> Response<R> {
    /// Reads status and headers.
    ///
    /// # Errors
    /// What the connection says; [`io::ErrorKind::InvalidData`] when this is no HTTP.
    pub(super) fn read(mut reader: R) -> io::Result<Response<R>> {
        let status_line = line(&mut reader)?;
        let status = status_line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
        let status = status.ok_or_else(|| malformed("not an HTTP answer"))?;
        let mut framing = Framing::UntilEnd;
        for count in 0.. {
            let header = line(&mut reader)?;
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').ok_or_else(|| malformed("a header without a name"))?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => framing = Framing::Chunk(0),
                "transfer-encoding" => return Err(malformed("an encoding nobody asked for")),
                "content-length" if framing == Framing::UntilEnd => {
                    let length = value.parse().map_err(|_| malformed("a length that is no number"))?;
                    framing = Framing::Length(length);
                }
                _ => {}
            }
            if count == HEADERS_MAX {
                return Err(malformed("too many headers"));
            }
        }
        Ok(Response { status, reader, framing, first_chunk: true })
    }

    /// The whole body.
    ///
    /// # Errors
    /// As [`Response::read`]; a body that is cut off is an error too.
    pub(super) fn body(mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self).take(BODY_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > BODY_BYTES_MAX {
            Err(malformed("an answer that is too long"))
        } else {
            Ok(bytes)
        }
    }

    /// Reads the size of the next chunk; 0 is the end, whatever trailers follow.
    fn next_chunk(&mut self) -> io::Result<u64> {
        if !self.first_chunk && !line(&mut self.reader)?.is_empty() {
            return Err(malformed("a chunk that is longer than it says"));
        }
        self.first_chunk = false;
        let size = line(&mut self.reader)?;
        let digits = size.split(';').next().unwrap_or_default().trim();
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = u64::from_str_radix(digits, 16).ok().filter(|_| plain);
        size.ok_or_else(|| malformed("a chunk without a size"))
    }
}

impl<R: BufRead> Read for Response<R> {
    /// Bytes of the body. After an error the body cannot be read on.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.framing == Framing::Chunk(0) {
            let size = self.next_chunk()?;
            self.framing = if size == 0 { Framing::Over } else { Framing::Chunk(size) };
        }
        let left = match self.framing {
            Framing::Length(left) | Framing::Chunk(left) => left,
            Framing::UntilEnd => u64::MAX,
            Framing::Over => 0,
        };
        let wanted = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.reader.read(bytes.get_mut(..wanted).unwrap_or_default())?;
        if read == 0 && wanted > 0 && self.framing != Framing::UntilEnd {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &mut self.framing {
            Framing::Length(left) | Framing::Chunk(left) => *left -= read as u64,
            Framing::UntilEnd | Framing::Over => {}
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    /// Status and body of an answer that arrives in pieces of this size.
    fn answer(text: &str, piece: usize) -> io::Result<(u16, String)> {
        let response = Response::read(BufReader::with_capacity(piece, text.as_bytes()))?;
        let status = response.status;
        Ok((status, String::from_utf8(response.body()?).unwrap()))
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        for piece in [1, 2, 3, 1000] {
            for (text, body) in [
                ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello more", "hello"),
                ("HTTP/1.0 200 OK\r\n\r\nup to the end", "up to the end"),
                ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", ""),
                ("HTTP/1.1 200 OK\nTRANSFER-encoding: Chunked\n\n2\nhe\n3;x=y\nllo\n0\n\n", "hello"),
                (
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n",
                    "0123456789",
                ),
            ] {
                assert_eq!(answer(text, piece).unwrap(), (200, body.to_owned()), "{text}");
            }
        }
    }

    #[test]
    fn an_answer_that_is_cut_off_or_nonsense_is_an_error() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        let crowd = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(200));
        for text in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
            &long,
            &crowd,
        ] {
            assert!(answer(text, 100).is_err(), "{text}");
        }
    }

    #[test]
    fn a_request_has_one_head_and_the_length_of_its_body() {
        let text = String::from_utf8(request("POST", "h:1", "/v3/x", Some("t.1"), "{}")).unwrap();
        assert!(text.starts_with("POST /v3/x HTTP/1.1\r\nHost: h:1\r\n"), "{text}");
        assert!(
            text.contains("\r\nAuthorization: t.1\r\n") && text.ends_with("Content-Length: 2\r\n\r\n{}"),
            "{text}"
        );
    }
}
