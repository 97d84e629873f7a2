//! What loads, what is refused and with which words, and that what is printed loads again.

use super::*;
use fairlock_locktable::Rules;
use fairlock_protocol::{Discipline, Namespace};

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/fairlock.toml"), text)
}

#[test]
fn the_defaults_run_alone_on_loopback() {
    let config = Config::default();
    config.check().unwrap();
    assert_eq!(config.listen, ["127.0.0.1:7411".parse().unwrap()]);
    assert_eq!((config.socket_mode, config.drain), (0o660, Duration::from_secs(5)));
    assert!(!config.is_exposed());
    assert_eq!(parse("").unwrap(), config);
}

#[test]
fn what_is_printed_loads_again_as_the_same() {
    let mut told = Config {
        listen: vec!["127.0.0.1:0".parse().unwrap(), "[::1]:7411".parse().unwrap()],
        socket: None,
        socket_mode: 0o600,
        socket_group: Some("lock \"users\"\\".to_string()),
        shards: Some(3),
        state_dir: Some(PathBuf::from("/tmp/with 'quotes' and \"more\"")),
        io: IoChoice::Epoll,
        poll: Poll::Never,
        pin: true,
        admin: Some("127.0.0.1:9".parse().unwrap()),
        drain: Duration::from_millis(1250),
        insecure: true,
        ttl_max: Duration::from_mins(30),
        signals: false,
        limits: Limits { sessions: 7, ..Limits::default() },
        register: RegisterConfig {
            url: Some("etcds://h1:1,[::1]:2".to_string()),
            ca: Some(PathBuf::from("/ca.pem")),
            cert: Some(PathBuf::from("/cert.pem")),
            key: Some(PathBuf::from("/key \"1\".pem")),
            user: Some("fair".to_string()),
            password_file: Some(PathBuf::from("/password")),
            timeout: Duration::from_millis(750),
        },
        namespaces: BTreeMap::from([
            ("a.b-c".to_string(), NamespaceConfig::new(Discipline::Phase)),
            (
                "jobs".to_string(),
                NamespaceConfig {
                    discipline: Discipline::Priority,
                    bypass_budget: Some(3),
                    age_step: Some(Duration::from_millis(250)),
                },
            ),
        ]),
        cell: CellConfig {
            name: Some("prod".to_string()),
            node: Some("a-1".to_string()),
            peer_listen: Some("0.0.0.0:7413".parse().unwrap()),
            peer_address: Some("a-1.example:7413".to_string()),
            client_address: Some("a-1.example:7411".to_string()),
            profile: Some(ProfileChoice::Lan),
            min_copies: Some(2),
            peer_secret: Some(PathBuf::from("/etc/fairlock/\"secret\"")),
        },
    };
    for config in [&Config::default(), &told] {
        let text = config.describe();
        assert_eq!(&parse(&text).unwrap(), config, "{text}");
    }
    (told.io, told.poll, told.listen) = (IoChoice::Uring, Poll::Always, vec![]);
    assert_eq!(parse(&told.describe()).unwrap(), told);
}

#[test]
fn every_key_is_printed_with_its_default() {
    let text = Config::default().describe();
    // A key that cannot be given is answered with the list of those that can.
    for section in ["", "[limits]\n", "[register]\n", "[namespace.x]\n", "[cell]\n"] {
        let error = parse(&format!("{section}nonsense = 1")).unwrap_err().to_string();
        let keys = error.split_once("expected one of").unwrap().1;
        for key in keys
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|key| !["limits", "register", "namespace", "cell"].contains(key))
        {
            let line =
                text.lines().position(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
            let line = line.unwrap_or_else(|| panic!("`{key}` is not printed"));
            let comment = text.lines().nth(line - 1).unwrap();
            assert!(comment.starts_with("# ") && comment.contains("Default: "), "{key}: {comment}");
        }
    }
}

#[test]
fn what_is_wrong_is_named_by_file_line_and_key() {
    let table = [
        ("\nlisten_on = []", 2, "listen_on", "unknown field"),
        ("[limits]\nsessions = 1\nsession = 2", 3, "session", "unknown field"),
        ("drain = \"5 parsecs\"", 1, "drain", "a duration is"),
        ("drain = -1", 1, "drain", "a duration is"),
        ("\n\n\nttl_max = true", 4, "ttl_max", "a duration is"),
        ("listen = [\"localhost\"]", 1, "listen", "socket address"),
        ("socket_mode = \"0999\"", 1, "socket_mode", "octal"),
        ("socket_mode = 4096", 1, "socket_mode", "octal"),
        ("io = \"iocp\"", 1, "io", "uring"),
        ("shards = -1", 1, "shards", ""),
        ("poll = always", 1, "poll", ""),
        ("pin = true\npin = true", 2, "pin", "duplicate"),
        ("limits = 5", 1, "limits", ""),
        ("[register]\nurls = \"etcd://h\"", 2, "urls", "unknown field"),
        ("[register]\ntimeout = \"soon\"", 2, "timeout", "a duration is"),
        ("[namespace.a]\ndiscipline = \"fair\"", 2, "discipline", "\"phase\" or \"priority\""),
        ("[namespace.a]\nbudget = 3", 2, "budget", "unknown field"),
        ("[namespace.a]\nage_step = \"soon\"", 2, "age_step", "a duration is"),
        ("[namespace.a]\nbypass_budget = -1", 2, "bypass_budget", ""),
    ];
    for (text, line, key, words) in table {
        let error = parse(text).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with(&format!("/etc/fairlock.toml:{line}: ")), "{text}: {message}");
        assert!(message.contains(&format!("`{key}`")) && message.contains(words), "{text}: {message}");
        assert!(!message.contains('\n') && error.exit_code() == 78);
    }
    assert!(matches!(Config::load(Path::new("/nowhere/x.toml")), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn beyond_loopback_nobody_listens_by_accident() {
    for (text, key) in
        [("listen = [\"127.0.0.1:1\", \"0.0.0.0:7411\"]", "listen"), ("admin = \"[::]:80\"", "admin")]
    {
        let error = parse(text).unwrap().check().unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("--insecure"), "{error}");
        let accepted = parse(&format!("insecure = true\n{text}")).unwrap();
        accepted.check().unwrap();
        assert!(accepted.is_exposed());
    }
    parse("listen = [\"127.9.9.9:1\", \"[::1]:1\"]").unwrap().check().unwrap();
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    let table = [
        ("shards = 0", "shards"),
        ("shards = 257", "shards"),
        ("ttl_max = \"100ms\"", "ttl_max"),
        ("ttl_max = \"61m\"", "ttl_max"),
        ("listen = []\nsocket = \"\"", "listen"),
        ("limits.sessions = 0", "limits.sessions"),
        ("limits.locks_per_session = 4000000000", "limits.locks_per_session"),
        ("limits.write_backlog_bytes = 1000", "limits.write_backlog_bytes"),
        ("register.url = \"http://h\"", "register.url"),
        ("register.url = \"etcds://h\"", "register.ca"),
        ("register.url = \"etcd://h\"\nregister.ca = \"/x\"", "register.ca"),
        ("register.url = \"etcds://h\"\nregister.ca = \"/x\"\nregister.key = \"/x\"", "register.cert"),
        ("register.url = \"etcds://h\"\nregister.ca = \"/x\"\nregister.cert = \"/x\"", "register.key"),
        ("register.url = \"etcd://h\"\nregister.user = \"x\"", "register.password_file"),
        ("register.url = \"etcd://h\"\nregister.password_file = \"/x\"", "register.user"),
        ("register.url = \"file:/x\"\nregister.user = \"x\"", "register.user"),
        ("register.user = \"x\"", "register.url"),
        ("register.timeout = \"10ms\"", "register.timeout"),
        ("register.timeout = \"2m\"", "register.timeout"),
    ];
    for (text, key) in table {
        let error = parse(text).unwrap().check().unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{key}`")), "{error}");
    }
}

#[test]
fn what_a_namespace_cannot_go_by_is_refused_by_name_and_with_advice() {
    let table = [
        ("[namespace.\"A b\"]", "namespace.A b", "a-z"),
        ("[namespace.\"\"]", "namespace.", "a-z"),
        ("[namespace.a]\nbypass_budget = 4", "namespace.a.bypass_budget", "discipline"),
        ("[namespace.a]\ndiscipline = \"phase\"\nage_step = 1", "namespace.a.age_step", "leave it out"),
        ("[namespace.a]\ndiscipline = \"phase\"\nbypass_budget = 0", "namespace.a.bypass_budget", "strict"),
        (
            "[namespace.a]\ndiscipline = \"priority\"\nbypass_budget = 65537",
            "namespace.a.bypass_budget",
            "65536",
        ),
        ("[namespace.a]\ndiscipline = \"priority\"\nage_step = 0", "namespace.a.age_step", "1ms"),
        ("[namespace.a]\ndiscipline = \"priority\"\nage_step = \"2h\"", "namespace.a.age_step", "1h"),
    ];
    for (text, key, words) in table {
        let error = parse(text).unwrap().check().unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with(&format!("`{key}`: ")) && message.contains(words), "{text}: {message}");
        assert_eq!(error.exit_code(), 78);
    }
}

#[test]
fn a_namespace_has_the_default_numbers_unless_told_others() {
    let config = parse(
        "[namespace.a]\ndiscipline = \"phase\"\n[namespace.b]\ndiscipline = \"priority\"\nage_step = 2",
    );
    let rules = config.unwrap().table_rules();
    let of = |name: &'static str| rules.of(Namespace::new(name.as_bytes()).unwrap());
    assert_eq!(of("a"), Rules::new(Discipline::Phase));
    assert_eq!(of("b"), Rules { age_step: Duration::from_secs(2), ..Rules::new(Discipline::Priority) });
    assert_eq!(of("default"), Rules::STRICT);
}

#[test]
fn durations_have_units_fractions_and_a_bound() {
    let ms = |text: &str| parse_duration(text).map(|duration| duration.as_millis());
    assert_eq!(ms("250ms"), Ok(250));
    assert_eq!((ms("5s"), ms("5"), ms("0.25"), ms("2m")), (Ok(5000), Ok(5000), Ok(250), Ok(120_000)));
    assert_eq!((ms("1h"), ms("1.5m"), ms("0"), ms(" 3s ")), (Ok(3_600_000), Ok(90_000), Ok(0), Ok(3000)));
    for text in ["", "s", ".5", "5.", "-1", "1d", "1e3", "5 s s", "1.2.3", "9999999999999", "400000h", "٣s"]
    {
        assert_eq!(parse_duration(text), Err(NotADuration), "{text}");
    }
    assert_eq!(parse("drain = 2").unwrap().drain, Duration::from_secs(2));
    assert_eq!(parse("drain = 0.5").unwrap().drain, Duration::from_millis(500));
}
