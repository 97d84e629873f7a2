//! The judge of histories: it finds nothing in what a correct service did and something in what a wrong one did, agrees with
//! an oracle that ignores tokens, and judges what real clients wrote while they were killed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use fairlock_cli::history::{Event, Place, Report, Rule, Story, What};
use fairlock_tests::command::{Running, finish};
use fairlock_tests::invented::{Fault, history, noise, overlap_two, swap_tokens};
use fairlock_tests::oracle::overlaps;
use fairlock_tests::random::{Random, seed};
use fairlock_tests::recorder::Recorder;
use fairlock_tests::scratch::Scratch;
use fairlock_tests::{eventually, ways, workspace};
use rustix::process::Signal;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Histories of each kind.
const HISTORIES: usize = 120;
/// Events of each.
const LENGTH: usize = 300;

/// Judges, and compares with the oracle: each finds an overlap where the other does.
fn judge(events: &[Event<'_>]) -> Report {
    let mut story = Story::default();
    for (line, event) in (1..).zip(events) {
        // Through its line, as it would be read.
        let text = event.line();
        story.add(Place { file: 0, line }, &Event::parse(text.trim_end().as_bytes()).unwrap());
    }
    let report = story.judge();
    let known = overlaps(events);
    let found = report.violations.iter().filter(|violation| violation.rule == Rule::Exclusion);
    let pairs: Vec<(u32, u32)> = found
        .map(|violation| {
            let (one, other) = (violation.places[0].line, violation.places[1].line);
            (one.min(other), one.max(other))
        })
        .collect();
    assert_eq!(known.is_empty(), pairs.is_empty(), "the oracle knows {known:?}, the judge found {pairs:?}");
    for pair in &pairs {
        assert!(known.contains(pair), "{pair:?} is not known to the oracle: {known:?}");
    }
    report
}

/// The rules broken.
fn broken(report: &Report) -> Vec<Rule> {
    Rule::ALL.into_iter().filter(|&rule| report.broken(rule) > 0).collect()
}

#[test]
fn a_correct_service_is_found_clean() {
    let mut random = Random::from_seed(seed("correct service", 11));
    for number in 0..HISTORIES {
        let events = history(&mut random, Fault::None, LENGTH);
        let report = judge(&events);
        assert!(report.is_clean(), "history {number}: {:#?}", report.violations.first());
        assert!(report.counts.granted > 20 && report.counts.tenures > 20, "{:?}", report.counts);
    }
}

#[test]
fn a_history_with_one_thing_changed_is_found_out_each_time() {
    let mut random = Random::from_seed(seed("changed histories", 12));
    let mut changed = 0;
    for number in 0..HISTORIES {
        let events = history(&mut random, Fault::None, LENGTH);
        if let Some(events) = overlap_two(&mut random, events.clone()) {
            let rules = broken(&judge(&events));
            assert!(rules.contains(&Rule::Exclusion), "history {number}, an overlap: {rules:?}");
            changed += 1;
        }
        if let Some(events) = swap_tokens(&mut random, events.clone()) {
            let rules = broken(&judge(&events));
            assert!(rules.contains(&Rule::Order), "history {number}, swapped tokens: {rules:?}");
            changed += 1;
        }
        let is_killed =
            |client: &str| events.iter().any(|event| event.what == What::Killed && event.client == client);
        let last = events
            .iter()
            .rposition(|event| matches!(event.what, What::Refused { .. }) && !is_killed(&event.client));
        if let Some(last) = last {
            let mut events = events;
            events.remove(last);
            assert_eq!(broken(&judge(&events)), [Rule::Outcome], "history {number}, no outcome");
            changed += 1;
        }
    }
    assert!(changed > 2 * HISTORIES, "only {changed} histories could be changed");
}

#[test]
fn a_service_with_a_fault_is_found_out_by_the_rule_it_breaks() {
    let mut random = Random::from_seed(seed("faulty services", 13));
    let faults = [
        (Fault::LosesGrants, Rule::Exclusion),
        (Fault::Overtakes, Rule::Fifo),
        (Fault::FallsSilent, Rule::Outcome),
        (Fault::Impatient, Rule::Lease),
        (Fault::RepeatsTokens, Rule::Token),
        (Fault::LaxFences, Rule::Fence),
    ];
    for (fault, rule) in faults {
        let found =
            (0..HISTORIES).filter(|_| judge(&history(&mut random, fault, LENGTH)).broken(rule) > 0).count();
        eprintln!("{fault:?} was found out {found} times of {HISTORIES}");
        // Not every fault can be seen by the clients: who was forgotten may have been about to leave.
        assert!(found > HISTORIES / 4, "{fault:?} was found out {found} times of {HISTORIES}");
    }
}

#[test]
fn the_judge_and_the_oracle_agree_on_noise() {
    let mut random = Random::from_seed(seed("noise", 14));
    for _ in 0..20 * HISTORIES {
        let holds = 2 + random.below(12);
        judge(&noise(&mut random, holds));
    }
}

/// Some clients, a few of them killed; gives what they wrote, and a line for each killed one.
fn real(endpoint: &str, scratch: &Scratch) -> Vec<PathBuf> {
    let watcher = Recorder::new(&scratch.join("watcher"), "watcher");
    let mut files = vec![scratch.join("watcher")];
    let mut clients = Vec::new();
    for number in 0..6 {
        let name = format!("client-{number}");
        let mut command = Command::new(workspace::own_binary("storm-client"));
        // The first two live until they are killed.
        let length = if number < 2 { "60000" } else { "1500" };
        command
            .args([endpoint, &number.to_string()])
            .arg(scratch.join(&name))
            .args([length, "0", "400", "2"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        files.push(scratch.join(&name));
        clients.push((name, Running::start(command)));
    }
    for (name, mut client) in clients.drain(..2) {
        let path = scratch.join(&name);
        eventually("it has held something", || {
            let history = std::fs::read_to_string(&path).unwrap_or_default();
            history.contains(r#""event":"valid""#).then_some(())
        });
        watcher.killed(&name);
        client.signal(Signal::KILL);
        assert_eq!(client.wait(), 137);
    }
    for (_, client) in clients {
        let finished = client.finish();
        assert_eq!(finished.code, 0, "{}", finished.stderr);
    }
    files
}

fn verify(files: &[PathBuf], more: &[&str]) -> fairlock_tests::command::Finished {
    let files = files.iter().map(|path| path.to_str().unwrap());
    finish("unix:/nonexistent", ["verify"].into_iter().chain(files).chain(more.iter().copied()))
}

/// G1, G2, G5, G8: real clients, some killed with SIGKILL; and whoever forges their history is found out.
#[test]
fn what_real_clients_wrote_is_clean_and_a_forged_history_is_not() {
    for way in ways::single() {
        let server = way.plan().start();
        let scratch = Scratch::new();
        let files = real(&way.endpoint(&server), &scratch);
        let said = verify(&files, &["--json"]);
        assert_eq!(said.code, 0, "{way:?}: {}{}", said.stdout, said.stderr);
        let document = said.json();
        assert_eq!((&document["clean"], &document["killed"]), (&true.into(), &2.into()), "{document}");
        for count in ["lines", "requests", "granted", "refused", "tenures", "certain_holds"] {
            assert!(document[count].as_u64().unwrap() > 10, "{count}: {document}");
        }
        assert!(verify(&files, &[]).stdout.contains("clean"));

        // Somebody who was never let in says that he held through all of it.
        let forged = scratch.join("forged");
        let recorder = Recorder::new(&forged, "forger");
        let (begin, end) = (1, u64::MAX >> 1);
        let acquire = What::Acquire {
            request: 1,
            namespace: "default".into(),
            name: b"storm/0".as_slice().into(),
            mode: fairlock::Mode::EX,
            owner: 1,
            wait_ms: None,
        };
        recorder.note(begin, acquire);
        let granted = What::Granted {
            request: 1,
            token: Some(1),
            fence: Some(0),
            waited_ns: 0,
            until_ns: end,
            session: "".into(),
        };
        recorder.note(begin + 1, granted);
        recorder.note(end, What::Release { request: 1 });
        let all: Vec<PathBuf> = files.iter().cloned().chain([forged.clone()]).collect();
        let said = verify(&all, &["--json"]);
        assert_eq!(said.code, 1, "{}", said.stderr);
        let document = said.json();
        let first = &document["violations"][0];
        assert_eq!((&document["clean"], &first["rule"]), (&false.into(), &"exclusion".into()), "{document}");
        let events = first["events"].as_array().unwrap();
        assert!(events.iter().any(|event| event["file"] == forged.to_str().unwrap() && event["line"] == 2));
        assert!(document["violations"].as_array().unwrap().len() <= 20, "only the first are shown");
        let text = verify(&all, &[]).stdout;
        assert!(text.contains(&format!("{}:2", forged.display())) && text.contains("exclusion"), "{text}");
    }
}

#[test]
fn what_a_killed_writer_leaves_is_read_and_anything_else_that_is_no_line_is_not() {
    let scratch = Scratch::new();
    let file = scratch.join("history");
    let line = r#"{"at":1,"event":"open","client":"a"}"#;
    std::fs::write(&file, format!("{line}\n{{\"at\":2,\"eve")).unwrap();
    let said = verify(std::slice::from_ref(&file), &["--json"]);
    assert_eq!((said.code, &said.json()["cut"]), (0, &1.into()), "{}", said.stderr);
    std::fs::write(&file, format!("{line}\n{{\"at\":2,\"eve\n{line}\n")).unwrap();
    let said = verify(std::slice::from_ref(&file), &[]);
    assert_eq!(said.code, 65);
    assert!(said.stderr.contains(&format!("{}:2", file.display())), "{}", said.stderr);
    assert_eq!(verify(&[scratch.join("missing")], &[]).code, 65);
    assert_eq!(verify(&[], &[]).code, 64);
}
