//! The register in a directory, the thread that asks, and what cannot be opened.

use std::sync::Arc;
use std::sync::{Condvar, Mutex, mpsc};

use fairlock_replication::memory::Memory;
use fairlock_replication::{Answer, Ask, Revision};

use super::super::{Busy, OpenError, RegisterThread, open};
use super::*;
use crate::control::test_room::TempDir;

fn in_directory(room: &TempDir) -> RegisterConfig {
    let url = Some(format!("file:{}", room.path().join("register").display()));
    RegisterConfig { url, ..RegisterConfig::default() }
}

#[test]
fn a_directory_swaps_once_for_each_revision_and_remembers() {
    let room = TempDir::new();
    let config = in_directory(&room);
    let mut opened = open(&config, "test").unwrap();
    assert_eq!(opened.register.read(), Answer::Value(None));
    assert_eq!(
        opened.register.compare_and_swap(Some(Revision(1)), &configuration(1)),
        Answer::Conflict(None)
    );
    let Answer::Written(first) = opened.register.compare_and_swap(None, &configuration(1)) else {
        panic!("empty")
    };
    let Answer::Written(second) = opened.register.compare_and_swap(Some(first), &configuration(2)) else {
        panic!("nobody else is there");
    };
    assert!(second > first);
    let Answer::Conflict(Some(there)) = opened.register.compare_and_swap(Some(first), &configuration(3))
    else {
        panic!("it was written since");
    };
    assert_eq!((there.configuration.epoch.get(), there.revision), (2, second));
    assert!(
        matches!(open(&config, "test"), Err(OpenError::Directory(error)) if error.to_string().contains("in use"))
    );
    drop(opened);
    let mut opened = open(&config, "test").unwrap();
    let Answer::Value(Some(there)) = opened.register.read() else { panic!("it was durable") };
    assert_eq!(there.configuration, configuration(2));
    assert!(matches!(
        opened.register.compare_and_swap(Some(there.revision), &configuration(3)),
        Answer::Written(_)
    ));
}

#[test]
fn a_damaged_file_is_never_taken_for_a_missing_one() {
    let room = TempDir::new();
    let mut opened = open(&in_directory(&room), "test").unwrap();
    let path = room.path().join("register/configuration");
    for (text, words) in [("hello\n", "damaged"), ("fairlock-configuration 9\n", "newer version")] {
        std::fs::write(&path, text).unwrap();
        for answer in [opened.register.read(), opened.register.compare_and_swap(None, &configuration(1))] {
            assert!(matches!(&answer, Answer::Failed(why) if why.contains(words)), "{answer:?}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

/// A register that answers when it is let.
struct Gated(Memory, Arc<(Mutex<bool>, Condvar)>);

impl Register for Gated {
    fn read(&mut self) -> Answer {
        let (open, opened) = &*self.1;
        drop(opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
        self.0.read()
    }

    fn compare_and_swap(&mut self, expected: Option<Revision>, new: &Configuration) -> Answer {
        self.0.compare_and_swap(expected, new)
    }
}

#[test]
fn a_thread_has_one_ask_at_a_time_and_tells_each_answer_once() {
    let gate: Arc<(Mutex<bool>, Condvar)> = Arc::default();
    let (sender, answers) = mpsc::channel();
    let register = Box::new(Gated(Memory::new(), Arc::clone(&gate)));
    let mut thread = RegisterThread::start(register, move |answer| {
        let _ = sender.send(answer);
    })
    .unwrap();
    thread.ask(Ask::Read).unwrap();
    assert!(thread.is_busy());
    assert_eq!(thread.ask(Ask::Read), Err(Busy), "one is under way");
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    assert_eq!(answers.recv().unwrap(), Answer::Value(None));
    // Free again before the answer is told.
    thread.ask(Ask::Cas { expected: None, new: configuration(1) }).unwrap();
    assert_eq!(answers.recv().unwrap(), Answer::Written(Revision(1)));
    thread.ask(Ask::Read).unwrap();
    drop(thread);
    assert!(
        matches!(answers.recv(), Ok(Answer::Value(Some(_)))),
        "what was asked is answered before the end"
    );
    assert!(answers.recv().is_err());
}

#[test]
fn what_cannot_be_opened_says_which_key_is_wrong() {
    let room = TempDir::new();
    let pem = room.path().join("x.pem");
    std::fs::write(&pem, "no certificate").unwrap();
    let at = |url: &str| RegisterConfig { url: Some(url.to_owned()), ..RegisterConfig::default() };
    let missing = Some(room.path().join("missing"));
    let user = Some("u".to_owned());
    let table = [
        (RegisterConfig::default(), "test", "register.url"),
        (at("http://h"), "test", "register.url"),
        (at("etcd://h"), "Test", "a-z"),
        (at("etcd://h"), "a/b", "a-z"),
        (at("etcds://h"), "test", "`ca`"),
        (RegisterConfig { ca: missing.clone(), ..at("etcds://h") }, "test", "missing cannot be read"),
        (RegisterConfig { ca: Some(pem.clone()), ..at("etcds://h") }, "test", "x.pem holds no certificate"),
        (
            RegisterConfig { user: user.clone(), password_file: missing, ..at("etcd://h") },
            "test",
            "password_file",
        ),
    ];
    for (config, cell, words) in table {
        let error = open(&config, cell).unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert_eq!(error.exit_code(), 78);
    }
    std::fs::write(&pem, "\n").unwrap();
    let empty = RegisterConfig { user, password_file: Some(pem), ..at("etcd://h") };
    assert!(open(&empty, "test").unwrap_err().to_string().contains("1 to 4096 bytes"));
}
