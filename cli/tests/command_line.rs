//! The command line as scripts meet it, without a server: exit codes, help, completions, what is refused and how.

use std::process::{Command, Output, Stdio};

/// Runs the binary with nothing of this environment that could lead it to a server.
fn fairlock(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fairlock"))
        .args(arguments)
        .env_remove("FAIRLOCK_ENDPOINT")
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

fn code(arguments: &[&str]) -> i32 {
    fairlock(arguments).status.code().expect("it exits")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const COMMANDS: [&[&str]; 21] = [
    &["serve"],
    &["run"],
    &["hold"],
    &["ls"],
    &["show"],
    &["why"],
    &["sessions"],
    &["status"],
    &["break"],
    &["session"],
    &["session", "kill"],
    &["cluster"],
    &["cluster", "status"],
    &["cluster", "switchover"],
    &["cluster", "evict"],
    &["cluster", "force-new"],
    &["cluster", "demo"],
    &["doctor"],
    &["bench"],
    &["verify"],
    &["completions"],
];

#[test]
fn every_command_has_help_with_an_example() {
    for command in COMMANDS {
        let output = fairlock(&[command, &["--help"]].concat());
        let help = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        assert!(help.contains("Examples:"), "{command:?}: {help}");
        assert!(help.contains("fairlock "), "{command:?}: {help}");
        assert!(!help.contains("internal"), "{command:?} shows what is hidden");
    }
    assert!(text(&fairlock(&["--help"]).stdout).contains("Examples:"));
}

#[test]
fn version_is_an_answer() {
    let output = fairlock(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), format!("fairlock {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_is_not_understood_exits_with_64() {
    let wrong: [&[&str]; 18] = [
        &[],
        &["nonsense"],
        &["run"],
        &["run", "name"],
        &["run", "name", "true"],
        &["run", "name", "--"],
        &["run", "-n", "-w", "1", "name", "--", "true"],
        &["run", "-s", "--mode", "EX", "name", "--", "true"],
        &["run", "--mode", "XX", "name", "--", "true"],
        &["run", "--wait", "soon", "name", "--", "true"],
        &["run", "--ttl", "100ms", "name", "--", "true"],
        &["run", "--on-lost", "cry", "name", "--", "true"],
        &["session", "kill", "not-an-id"],
        &["serve", "--io", "magic"],
        &["serve", "--listen", "nowhere"],
        &["bench", "--clients", "0"],
        &["verify"],
        &["completions", "tcl"],
    ];
    for arguments in wrong {
        assert_eq!(code(arguments), 64, "{arguments:?}");
    }
}

#[test]
fn a_bad_name_or_endpoint_is_a_usage_error_whether_or_not_a_server_runs() {
    let nowhere = "--endpoint=unix:/nowhere/at/all.sock";
    let long = "x".repeat(1025);
    let wrong: [&[&str]; 9] = [
        &["run", nowhere, "", "--", "true"],
        &["run", nowhere, &long, "--", "true"],
        &["run", nowhere, "--namespace", "Upper", "x", "--", "true"],
        &["hold", nowhere, ""],
        &["show", nowhere, ""],
        &["break", nowhere, &long],
        &["ls", "--endpoint", "ftp://host"],
        &["ls", "--endpoint", "tcp://host:1", "--transport", "unix"],
        &["run", "--endpoint", "tcp://127.0.0.1:1", "--liveness", "inherit", "x", "--", "true"],
    ];
    for arguments in wrong {
        assert_eq!(code(arguments), 64, "{arguments:?}");
    }
}

#[test]
fn no_server_is_69_and_says_how_to_get_one() {
    let nowhere = "--endpoint=unix:/nowhere/at/all.sock";
    let asked: [&[&str]; 8] = [
        &["ls", nowhere],
        &[nowhere, "show", "x"],
        &["why", "x", nowhere],
        &["sessions", nowhere],
        &["status", nowhere],
        &["break", "x", nowhere],
        &["hold", "x", nowhere],
        &["run", nowhere, "x", "--", "true"],
    ];
    for arguments in asked {
        let output = fairlock(arguments);
        assert_eq!(output.status.code(), Some(69), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("fairlock serve"), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn the_endpoint_may_come_from_the_environment_and_is_beaten_by_the_flag() {
    let run = |flag: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fairlock"));
        command.arg("ls").args(flag).env("FAIRLOCK_ENDPOINT", "nonsense").stdin(Stdio::null());
        command.output().expect("the binary runs").status.code()
    };
    assert_eq!(run(&[]), Some(64));
    assert_eq!(run(&["--endpoint", "unix:/nowhere/at/all.sock"]), Some(69));
}

#[test]
fn a_flag_of_a_cell_alone_is_refused_and_not_ignored() {
    for flags in [
        ["--cell", "prod"],
        ["--node", "1"],
        ["--register", "etcd://127.0.0.1:2379"],
        ["--peer-listen", "127.0.0.1:0"],
        ["--peer-address", "a:1"],
        ["--client-address", "a:1"],
        ["--profile", "cloud"],
        ["--min-copies", "1"],
        ["--peer-secret", "/nowhere"],
    ] {
        let output = fairlock(&["serve", flags[0], flags[1]]);
        assert_eq!(output.status.code(), Some(78), "{flags:?}");
        assert!(text(&output.stderr).contains("a cell needs"), "{}", text(&output.stderr));
    }
}

#[test]
fn a_bad_configuration_is_78() {
    assert_eq!(code(&["serve", "--config", "/nowhere/at/all.toml"]), 78);
    assert_eq!(code(&["serve", "--listen", "0.0.0.0:0"]), 78);
    let path = std::env::temp_dir().join(format!("fairlock-bad-config-{}.toml", std::process::id()));
    std::fs::write(&path, "no_such_key = 1\n").expect("written");
    let output = fairlock(&["serve", "--config", path.to_str().expect("a text")]);
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("no_such_key"), "{}", text(&output.stderr));
}

#[test]
fn every_key_of_the_configuration_is_explained() {
    let output = fairlock(&["serve", "--print-config"]);
    assert_eq!(output.status.code(), Some(0));
    let keys = text(&output.stdout);
    for key in ["listen", "socket", "shards", "state_dir", "drain"] {
        assert!(keys.contains(key), "{key} is missing in {keys}");
    }
}

#[test]
fn completions_know_the_commands_and_hide_what_is_internal() {
    for shell in ["bash", "zsh", "fish"] {
        let output = fairlock(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = text(&output.stdout);
        for word in ["serve", "why", "doctor", "on-lost"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
}

#[test]
fn the_doctor_reports_without_a_server() {
    let output = fairlock(&["doctor", "--json", "--endpoint", "unix:/nowhere/at/all.sock"]);
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    let findings = findings.as_array().expect("a list");
    let server = findings.iter().find(|finding| finding["check"] == "server").expect("it looks for a server");
    assert_eq!(server["verdict"], "fail");
    for finding in findings {
        let fine = finding["verdict"] == "ok";
        assert!(fine || !finding["advice"].as_str().unwrap_or("").is_empty(), "no advice: {finding}");
    }
    assert!(matches!(output.status.code(), Some(69 | 70)), "{:?}", output.status);
}
