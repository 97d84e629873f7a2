//! The single checks. Each looks, and touches nothing.

use super::Finding;
use crate::args::{DoctorArgs, Reach};
use crate::failure::Failure;
use crate::print::duration::{human, human_ms};
use crate::remote;
use crate::run::readiness::now;
use crate::serve;
use fairlock::Address;
use rustix::fs::{Access, access};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{PidfdFlags, Resource, getpid, getrlimit, pidfd_open};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Name of the check that needs a server.
pub(super) const SERVER: &str = "server";
/// Questions asked to measure the way to the server.
const ROUND_TRIPS: u32 = 16;
/// A lease renewed every fifth of 5 s can bear this; more is a far-away or overloaded server.
const LATENCY_FINE: Duration = Duration::from_millis(100);
/// Open files a server with 100 000 sessions wants; one per client and a few more.
const NOFILE_FINE: u64 = 65_536;
/// Locked memory below which `io_uring` can fail on kernels before 5.12.
const MEMLOCK_FINE: u64 = 8 << 20;
/// Clock reads in one measurement.
const CLOCK_READS: u32 = 1_000;
/// A clock read by system call takes longer than this, one in user space much less.
const CLOCK_FINE: Duration = Duration::from_nanos(500);

/// All of them.
///
/// # Errors
/// 64 for an endpoint that is none.
pub(super) fn all(order: &DoctorArgs, reach: &Reach) -> Result<Vec<Finding>, Failure> {
    let endpoint = remote::endpoint(reach);
    let mut findings = match endpoint {
        Ok(endpoint) => {
            let mut findings = vec![Finding::ok("endpoint", endpoint.to_string())];
            findings.extend(endpoint.addresses().iter().filter_map(socket_file));
            findings.push(server(reach));
            findings.extend(super::cell::all(reach));
            findings
        }
        Err(failure) if failure.code == crate::failure::NO_SERVER => {
            vec![Finding::fail(SERVER, failure.text, "set FAIRLOCK_ENDPOINT or XDG_RUNTIME_DIR")]
        }
        Err(failure) => return Err(failure),
    };
    findings.extend([clock(), kernel(), io_uring(), open_files(), locked_memory(), pidfd(), peer_pidfd()]);
    findings.extend([membarrier(), subreaper(), state_directory(order)]);
    Ok(findings)
}

fn server(reach: &Reach) -> Finding {
    let began = Instant::now();
    let mut admin = match remote::admin(reach) {
        Ok(admin) => admin,
        Err(failure) => {
            return Finding::fail(
                SERVER,
                failure.text,
                "start one with `fairlock serve`, or name the right --endpoint",
            );
        }
    };
    let connected = began.elapsed();
    let mut best = Duration::MAX;
    let mut last = None;
    for _ in 0..ROUND_TRIPS {
        let asked = Instant::now();
        match admin.status() {
            Ok(status) => last = Some(status),
            Err(error) => {
                return Finding::fail(SERVER, remote::of_admin(&error).text, "see the server's log");
            }
        }
        best = best.min(asked.elapsed());
    }
    let Some(status) = last else { return Finding::fail(SERVER, "it said nothing", "see the server's log") };
    let found = format!(
        "fairlock {}, {}, {}; connected in {}, answers in {}",
        status.version,
        status.role.name(),
        status.io,
        human(connected),
        human(best)
    );
    if !status.alarms.is_empty() {
        return Finding::warn(SERVER, found, format!("alarms: {}", status.alarms.join("; ")));
    }
    if status.overtakes_total > 0 {
        return Finding::fail(SERVER, found, "overtakes_total is not 0: please report this");
    }
    if status.recovering_ms > 0 {
        let left = human_ms(status.recovering_ms.into());
        return Finding::warn(
            SERVER,
            found,
            format!("it grants nothing for {left} more, until old leases are over"),
        );
    }
    if status.version != env!("CARGO_PKG_VERSION") {
        let own = env!("CARGO_PKG_VERSION");
        return Finding::warn(SERVER, found, format!("this program is version {own}; upgrade the older one"));
    }
    if best > LATENCY_FINE {
        return Finding::warn(SERVER, found, "use a server nearer by, or leases of several seconds");
    }
    Finding::ok(SERVER, found)
}

/// Whether the socket is there and may be used.
fn socket_file(address: &Address) -> Option<Finding> {
    let Address::Unix(path) = address else { return None };
    let name = path.display();
    Some(match access(path, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => Finding::ok("socket", format!("{name} is there and may be used")),
        Err(rustix::io::Errno::ACCESS) => Finding::fail(
            "socket",
            format!("{name} is not for this user"),
            "join the socket's group, or start the server with --socket-group or --socket-mode",
        ),
        Err(error) => Finding::warn(
            "socket",
            format!("{name}: {error}"),
            "start a server: `fairlock serve --socket PATH`",
        ),
    })
}

fn clock() -> Finding {
    let began = Instant::now();
    for _ in 0..CLOCK_READS {
        std::hint::black_box(now());
    }
    let each = began.elapsed() / CLOCK_READS;
    let source = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let source = source.map_or_else(|_| "unknown".to_owned(), |source| source.trim().to_owned());
    let found = format!("CLOCK_BOOTTIME from {source}, {} a read", human(each));
    if each <= CLOCK_FINE {
        Finding::ok("clock", found)
    } else {
        Finding::warn("clock", found, "reads need a system call; use the tsc or kvm-clock clock source")
    }
}

fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (6, 7) {
        Finding::ok("kernel", release)
    } else if version >= (5, 15) {
        Finding::warn("kernel", release, "works; 6.7 and later also wait for sockets and futexes in one call")
    } else {
        Finding::fail("kernel", release, "5.15 or later is needed")
    }
}

fn io_uring() -> Finding {
    const CHECK: &str = "io_uring";
    match fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .map(|text| text.trim().to_owned())
        .as_deref()
    {
        Ok("0") => {
            Finding::ok(CHECK, "allowed by the kernel (a container's seccomp profile may still block it)")
        }
        Ok("1") => Finding::warn(
            CHECK,
            "only for the group in kernel.io_uring_group",
            "the server takes epoll; sysctl kernel.io_uring_disabled=0 allows io_uring",
        ),
        Ok(_) => Finding::warn(
            CHECK,
            "switched off (kernel.io_uring_disabled)",
            "the server takes epoll, a little slower; sysctl kernel.io_uring_disabled=0 allows io_uring",
        ),
        Err(_) => Finding::ok(CHECK, "no switch in this kernel; `fairlock serve` logs which driver it takes"),
    }
}

fn limit(current: Option<u64>, unit: u64, name: &str) -> String {
    current.map_or_else(|| "unlimited".to_owned(), |current| format!("{}{name}", current / unit))
}

fn open_files() -> Finding {
    let nofile = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit(nofile.current, 1, ""), limit(nofile.maximum, 1, ""));
    let found = format!("{soft} open files, at most {hard}");
    if nofile.maximum.is_none_or(|most| most >= NOFILE_FINE) {
        Finding::ok("nofile", found)
    } else {
        Finding::warn(
            "nofile",
            found,
            "a server needs one per client: raise it (LimitNOFILE=1048576, ulimit -n)",
        )
    }
}

fn locked_memory() -> Finding {
    let memlock = getrlimit(Resource::Memlock);
    let found = format!("{} may be locked", limit(memlock.current, 1024, " KiB"));
    if memlock.current.is_none_or(|most| most >= MEMLOCK_FINE) {
        Finding::ok("memlock", found)
    } else {
        Finding::warn(
            "memlock",
            found,
            "enough since Linux 5.12; before, io_uring needs more (LimitMEMLOCK=64M)",
        )
    }
}

fn pidfd() -> Finding {
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => Finding::ok("pidfd", "the death of a local process is seen at once"),
        Err(error) => {
            Finding::fail("pidfd", error.to_string(), "Linux 5.3 or later, and no seccomp filter on it")
        }
    }
}

/// Needs no call of ours that would be `unsafe`: the kernel's version and a socket pair tell.
fn peer_pidfd() -> Finding {
    const CHECK: &str = "SO_PEERPIDFD";
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let peer = UnixStream::pair().ok().and_then(|(one, _other)| socket_peercred(&one).ok());
    match (peer, version >= (6, 5)) {
        (Some(_), true) => Finding::ok(CHECK, "a client's process is identified without its number"),
        (Some(_), false) => Finding::warn(
            CHECK,
            "not in this kernel",
            "works; a process number reused within microseconds could be mistaken (Linux 6.5)",
        ),
        (None, _) => Finding::fail(CHECK, "the kernel does not say who a peer is", "allow SO_PEERCRED"),
    }
}

fn membarrier() -> Finding {
    const CHECK: &str = "membarrier";
    let command = rustix::thread::membarrier_query();
    if command.contains_command(rustix::thread::MembarrierCommand::PrivateExpedited) {
        Finding::ok(CHECK, "private expedited")
    } else {
        Finding::warn(CHECK, "not available", "works; shared memory releases take a slower instruction")
    }
}

fn subreaper() -> Finding {
    match rustix::process::child_subreaper() {
        Ok(_) => Finding::ok("subreaper", "`run` finds every descendant of its command"),
        Err(error) => {
            Finding::fail("subreaper", error.to_string(), "`run` cannot end descendants that left the group")
        }
    }
}

fn state_directory(order: &DoctorArgs) -> Finding {
    const CHECK: &str = "state dir";
    let Some(path): Option<PathBuf> = order.state_dir.clone().or_else(serve::default_state_directory) else {
        return Finding::warn(CHECK, "none", "set HOME or XDG_STATE_HOME, or use `serve --state-dir DIR`");
    };
    let name = path.display();
    match fs::metadata(&path) {
        Ok(found) if !found.is_dir() => {
            Finding::fail(CHECK, format!("{name} is not a directory"), "use `serve --state-dir DIR`")
        }
        Ok(found) => {
            let mode = found.permissions().mode() & 0o777;
            let text = format!("{name}, mode {mode:04o}");
            if access(&path, Access::WRITE_OK | Access::EXEC_OK).is_err() {
                Finding::warn(CHECK, text, "not writable for this user: a server run by it is refused (78)")
            } else if mode & 0o022 != 0 {
                Finding::warn(CHECK, text, format!("others may write to it: chmod 750 {name}"))
            } else {
                Finding::ok(CHECK, text)
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Finding::ok(CHECK, format!("{name} does not exist yet; the first `serve` makes it"))
        }
        Err(error) => Finding::warn(CHECK, format!("{name}: {error}"), "look at its permissions"),
    }
}
