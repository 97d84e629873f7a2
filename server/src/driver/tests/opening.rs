//! Which driver is opened, and what is said about it, with `io_uring` allowed and forbidden.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use tracing::field::{Field, Visit};
use tracing::span;

use super::*;

/// Keeps the text of every log line of one thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Visit for Lines {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut lines = self.0.lock().unwrap();
        write!(lines.last_mut().unwrap(), " {}={value:?}", field.name()).unwrap();
    }
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        self.0.lock().unwrap().push(event.metadata().level().to_string());
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Opens both choices in a thread for which `io_uring_setup` (or only `io_uring_enter`) fails with this error.
fn forbidden(call: libc::c_long, errno: i32) -> (&'static str, i32, Vec<String>) {
    let thread = std::thread::spawn(move || {
        let action = SeccompAction::Errno(errno.unsigned_abs());
        let rules = BTreeMap::from([(call, Vec::new())]);
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch).unwrap();
        // Binds this thread alone, and ends with it.
        seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
        let lines = Lines::default();
        let name = tracing::subscriber::with_default(lines.clone(), || open(IoChoice::Auto).unwrap().name());
        let error = open(IoChoice::Uring).err().unwrap().raw_os_error().unwrap();
        assert_eq!(open(IoChoice::Epoll).unwrap().name(), "epoll");
        (name, error, lines.0.lock().unwrap().clone())
    });
    thread.join().unwrap()
}

#[test]
fn auto_falls_back_to_epoll_and_says_why_in_one_line() {
    for (call, errno, meaning) in [
        (libc::SYS_io_uring_setup, libc::EPERM, "EPERM: blocked by a seccomp profile"),
        (libc::SYS_io_uring_setup, libc::ENOSYS, "ENOSYS: this kernel is built without"),
        (libc::SYS_io_uring_setup, libc::EINVAL, "older than 6.1"),
        (libc::SYS_io_uring_register, libc::EPERM, "EPERM: blocked by a seccomp profile"),
        (libc::SYS_io_uring_enter, libc::EPERM, "EPERM: blocked by a seccomp profile"),
    ] {
        let (name, error, lines) = forbidden(call, errno);
        assert_eq!((name, error), ("epoll", errno));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("WARN") && lines[0].contains(meaning), "{lines:?}");
    }
}

#[test]
fn auto_opens_what_uring_can_open() {
    let expected = if open(IoChoice::Uring).is_ok() { "uring" } else { "epoll" };
    assert_eq!(open(IoChoice::Auto).unwrap().name(), expected);
}
