//! What a server's control door says over HTTP: status code and body of a GET, and one metric out of the page.

use crate::WATCHDOG;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Status code and body of a GET.
///
/// # Panics
/// When there is no answer.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("the control door is open");
    stream.set_read_timeout(Some(WATCHDOG)).expect("a socket has a time-out");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let status = answer.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.unwrap_or_else(|| panic!("no status in {answer:?}")), body.to_owned())
}

/// The sum of a metric over its labels; `None` when the page does not have it.
pub fn metric(page: &str, ending: &str) -> Option<f64> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let values = samples.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        name.split('{').next()?.ends_with(ending).then(|| value.parse::<f64>().ok())?
    });
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum())
}
