//! The configuration as a file that explains itself: every key with its meaning, unit and default, and the value in
//! force. What is printed loads again as the same configuration.

use std::fmt::{Display, Write};

use fairlock_protocol::limits;

use super::values::write_duration;
use super::{Config, IoChoice, Limits, NamespaceConfig, Poll};

impl Config {
    /// Every key, as commented TOML that [`Config::load`] reads back as this configuration.
    pub fn describe(&self) -> String {
        let mut page = Page { text: String::new() };
        let default = Config::default();
        page.line("# Fairlock: every key, its meaning, its default, and the value in force.\n");
        self.describe_doors(&mut page, &default);
        self.describe_running(&mut page, &default);
        page.line("\n# What clients may use up; reaching one is a counted refusal.\n[limits]");
        self.limits.describe(&mut page, &default.limits);
        self.register.describe(&mut page, &default.register);
        self.describe_namespaces(&mut page);
        self.cell.describe(&mut page);
        page.text
    }

    fn describe_doors(&self, page: &mut Page, default: &Config) {
        let listen = |config: &Config| {
            let all: Vec<String> = config.listen.iter().map(|address| format!("\"{address}\"")).collect();
            format!("[{}]", all.join(", "))
        };
        let socket = |config: &Config| {
            quoted(
                config.socket.as_ref().map(|path| path.display()).map_or_else(String::new, |p| p.to_string()),
            )
        };
        let mode = |config: &Config| quoted(format!("{:04o}", config.socket_mode));
        page.key(
            "listen",
            "TCP addresses, [\"address:port\"]; port 0 picks one, [] means no TCP",
            listen,
            self,
            default,
        );
        page.key("socket", "path of the Unix socket; \"\" means none", socket, self, default);
        page.key("socket_mode", "permission bits of the Unix socket, octal", mode, self, default);
        let (group, meaning) =
            (self.socket_group.as_ref().map(quoted), "group of the Unix socket, name or number");
        page.optional("socket_group", meaning, "that of the process", group, "\"fairlock\"");
        let (admin, meaning) = (self.admin.map(quoted), "address of /metrics and /healthz, \"address:port\"");
        page.optional("admin", meaning, "not served", admin, "\"127.0.0.1:7412\"");
        let meaning = "listen beyond loopback although nobody has to show who he is; logged at every start";
        page.key("insecure", meaning, |config| config.insecure, self, default);
    }

    fn describe_namespaces(&self, page: &mut Page) {
        page.line("\n# Queue disciplines, a section for each namespace that has one; every other is strict.");
        if self.namespaces.is_empty() {
            page.line("\n# [namespace.jobs]");
            NamespaceConfig::describe(None, page);
        }
        for (namespace, config) in &self.namespaces {
            page.line(&format!("\n[namespace.{}]", quoted(namespace)));
            NamespaceConfig::describe(Some(config), page);
        }
    }

    fn describe_running(&self, page: &mut Page, default: &Config) {
        let (shards, meaning) = (self.shards, "shard threads, 1 to 256");
        page.optional("shards", meaning, "one a core, left after one for control", shards, "1");
        let path = self.state_dir.as_ref().map(|path| quoted(path.display()));
        let meaning = "directory in which epoch and longest lease are remembered";
        let place = "/var/lib/fairlock as root, else $XDG_STATE_HOME/fairlock";
        page.optional("state_dir", meaning, place, path, "\"/var/lib/fairlock\"");
        let io = |config: &Config| quoted(config.io.name());
        page.key("io", "how sockets are driven: \"auto\", \"uring\" or \"epoll\"", io, self, default);
        let poll = |config: &Config| quoted(config.poll.name());
        let meaning = "look for work without sleeping: \"auto\", \"always\" (a core a shard) or \"never\"";
        page.key("poll", meaning, poll, self, default);
        page.key("pin", "keep each shard thread on a core of its own", |config| config.pin, self, default);
        let drain = |config: &Config| quoted(write_duration(config.drain));
        let meaning =
            "how long holders have to release when the server is asked to stop; duration (ms, s, m, h)";
        page.key("drain", meaning, drain, self, default);
        let ttl_max = |config: &Config| quoted(write_duration(config.ttl_max));
        let meaning =
            "longest lease granted, 200ms to 1h; an unclean restart waits for the longest one alive";
        page.key("ttl_max", meaning, ttl_max, self, default);
    }
}

impl Limits {
    fn describe(&self, page: &mut Page, default: &Limits) {
        page.key("sessions", "sessions of one shard, count", |l| l.sessions, self, default);
        let meaning = "grants and waits of one session on one shard, count";
        page.key("locks_per_session", meaning, |l| l.locks_per_session, self, default);
        page.key(
            "waiters_per_resource",
            "waiters of one lock, count",
            |l| l.waiters_per_resource,
            self,
            default,
        );
        let meaning = "grants of one shard that may stay with a client on this host, count, 0 to 4096";
        page.key("cached_grants", meaning, |l| l.cached_grants, self, default);
        let meaning =
            "connections of one shard that have shown no session, count; the oldest silent one goes first";
        page.key("unbound_connections", meaning, |l| l.unbound_connections, self, default);
        let meaning = "the same from one address, count";
        page.key(
            "unbound_connections_per_address",
            meaning,
            |l| l.unbound_connections_per_address,
            self,
            default,
        );
        let meaning = "bytes waiting for one connection, beyond which it is dropped, never its locks";
        page.key("write_backlog_bytes", meaning, |l| l.write_backlog_bytes, self, default);
    }
}

impl NamespaceConfig {
    fn describe(config: Option<&NamespaceConfig>, page: &mut Page) {
        let discipline = config.map(|config| quoted(config.discipline.name()));
        let meaning = "by what wait queues go: \"strict\" (first come, first served), \"phase\" (readers may join readers \
            who hold) or \"priority\" (by the class of the request, 0 to 7)";
        page.optional("discipline", meaning, "\"strict\"", discipline, "\"priority\"");
        let budget = config.and_then(|config| config.bypass_budget);
        let meaning = "times a waiter may be passed (phase, priority), count, 1 to 65536";
        let default = limits::BYPASS_BUDGET_DEFAULT.to_string();
        page.optional("bypass_budget", meaning, &default, budget, &default);
        let step = config.and_then(|config| config.age_step);
        let step = step.map(|step| quoted(write_duration(step)));
        let meaning = "how long a waiter waits for each class it rises (priority), duration, 1ms to 1h";
        let default = quoted(write_duration(limits::AGE_STEP_DEFAULT));
        page.optional("age_step", meaning, &default, step, &default);
    }
}

impl IoChoice {
    /// The word of the configuration and the command line.
    pub const fn name(self) -> &'static str {
        match self {
            IoChoice::Auto => "auto",
            IoChoice::Uring => "uring",
            IoChoice::Epoll => "epoll",
        }
    }
}

impl From<IoChoice> for crate::driver::IoChoice {
    fn from(choice: IoChoice) -> crate::driver::IoChoice {
        match choice {
            IoChoice::Auto => crate::driver::IoChoice::Auto,
            IoChoice::Uring => crate::driver::IoChoice::Uring,
            IoChoice::Epoll => crate::driver::IoChoice::Epoll,
        }
    }
}

impl Poll {
    /// The word of the configuration and the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Poll::Always => "always",
            Poll::Auto => "auto",
            Poll::Never => "never",
        }
    }
}

/// The text so far.
pub(super) struct Page {
    text: String,
}

impl Page {
    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// A key that always has a value.
    pub(super) fn key<T, V: Display>(
        &mut self,
        key: &str,
        meaning: &str,
        value: impl Fn(&T) -> V,
        now: &T,
        default: &T,
    ) {
        let (value, default) = (value(now), value(default));
        write!(self.text, "\n# {meaning}. Default: {default}\n{key} = {value}\n").expect("a string takes it");
    }

    /// A key that may be absent: an example stands in a comment then.
    pub(super) fn optional<V: Display>(
        &mut self,
        key: &str,
        meaning: &str,
        default: &str,
        value: Option<V>,
        example: &str,
    ) {
        write!(self.text, "\n# {meaning}. Default: {default}\n").expect("a string takes it");
        match value {
            Some(value) => writeln!(self.text, "{key} = {value}"),
            None => writeln!(self.text, "# {key} = {example}"),
        }
        .expect("a string takes it");
    }
}

/// A TOML text, whatever it contains.
pub(super) fn quoted(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}
