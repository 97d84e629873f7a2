//! Queues that are not strict: who may pass whom, how often, by which class, and what is inherited.

use super::*;
use crate::rules::Rules;
use crate::views::Role;
use core::ops::ControlFlow;
use fairlock_protocol::{Discipline, Namespace};

/// The namespace in which these stories take place.
const SPACE: &str = "space";

fn told(rules: Rules) -> Story {
    let mut all = NamespaceRules::new();
    all.set(Namespace::new(SPACE.as_bytes()).unwrap(), rules);
    let (epoch, limits) = (Epoch::new(7).unwrap(), Limits::default());
    Story::told(Settings { epoch, shard: ShardId(0), index_key: 0x5EED, limits, rules: all })
}

fn phase(bypass_budget: u32) -> Story {
    told(Rules { bypass_budget, ..Rules::new(Discipline::Phase) })
}

/// Classes that rise every 100 ms.
fn priority(bypass_budget: u32) -> Story {
    told(Rules { bypass_budget, ..Rules::new(Discipline::Priority) })
}

impl Story {
    fn wanting(
        &mut self,
        session: SessionKey,
        name: &'static str,
        mode: Mode,
        class: u8,
    ) -> Acquire<'static> {
        let resource = Resource::new(SPACE.as_bytes(), name.as_bytes()).unwrap();
        let priority = Priority::new(class).unwrap();
        named(Acquire { resource, priority, ..self.asking(session, mode, Wait::Forever) })
    }

    /// Asks for the lock `x` in a class; the request and whether it was granted at once.
    fn want(&mut self, session: SessionKey, mode: Mode, class: u8) -> (RequestId, Option<GrantId>) {
        self.want_of(session, "x", mode, class)
    }

    fn want_of(
        &mut self,
        session: SessionKey,
        name: &'static str,
        mode: Mode,
        class: u8,
    ) -> (RequestId, Option<GrantId>) {
        let wanting = self.wanting(session, name, mode, class);
        let effects = self.ask(wanting);
        let grant =
            grants(&effects).contains(&wanting.request).then(|| granted(&effects, wanting.request).grant);
        (wanting.request, grant)
    }

    fn take(&mut self, session: SessionKey, name: &'static str, mode: Mode) -> GrantId {
        self.want_of(session, name, mode, 0).1.expect("it is free")
    }

    fn withdraw(&mut self, session: SessionKey, target: RequestId) -> Vec<Effect> {
        let request = self.request();
        self.apply(Command::Cancel { session, request, target })
    }

    /// Class and passes of those who wait for a lock, in order of arrival.
    fn waiting(&mut self, name: &'static str) -> Vec<(u8, u32)> {
        let session = self.table.session(SessionId::new(self.table.epoch(), ShardId(0), 1).unwrap()).unwrap();
        let digest = self.wanting(session, name, Mode::NL, 0).digest;
        let mut seen = Vec::new();
        self.table.due(self.now);
        self.table.show(digest, 0, |entry| {
            if entry.role == Role::Waiter {
                seen.push((entry.class.get(), entry.passed));
            }
            ControlFlow::Continue(())
        });
        seen
    }
}

/// G41: a priority is only a word where the namespace goes by none.
#[test]
fn in_a_strict_namespace_a_high_class_waits_its_turn() {
    let mut story = Story::new();
    let s = [0; 4].map(|_| story.open());
    let held = story.hold(s[0], Mode::PR);
    let first = story.queue(s[1], Mode::EX);
    let urgent = Acquire { priority: Priority::HIGHEST, ..story.asking(s[2], Mode::PR, Wait::Forever) };
    assert_eq!(grants(&story.ask(urgent)), []);
    assert_eq!(grants(&story.release(s[0], held.grant)), [first]);
    let counts = story.table.counts();
    assert_eq!((counts.bypasses_total, story.table.turns.len(), story.table.rotas.len()), (0, 0, 0));
}

/// G38: at most so many joins for each writer that waits.
#[test]
fn readers_join_readers_as_often_as_the_waiting_writer_may_be_passed() {
    let mut story = phase(2);
    let s = [0; 8].map(|_| story.open());
    story.take(s[0], "x", Mode::PR);
    assert_eq!(story.want(s[1], Mode::EX, 0).1, None);
    assert!(story.want(s[2], Mode::PR, 0).1.is_some());
    assert!(story.want(s[3], Mode::CR, 0).1.is_some());
    assert_eq!(story.want(s[4], Mode::PR, 0).1, None, "the writer was passed twice");
    assert_eq!(story.want(s[5], Mode::CR, 0).1, None);
    assert_eq!(story.waiting("x"), [(0, 2), (0, 0), (0, 0)]);
    assert_eq!(story.table.counts().bypasses_total, 2);
}

#[test]
fn who_waited_longer_keeps_being_passed_from_where_he_was() {
    let mut story = phase(2);
    let s = [0; 8].map(|_| story.open());
    let reader = story.take(s[0], "x", Mode::PR);
    let (first, _) = story.want(s[1], Mode::EX, 0);
    let joined = story.want(s[2], Mode::PR, 0).1.unwrap();
    story.want(s[3], Mode::EX, 0);
    assert!(story.want(s[4], Mode::PR, 0).1.is_some());
    assert_eq!(story.waiting("x"), [(0, 2), (0, 1)]);
    story.withdraw(s[1], first);
    assert_eq!(story.waiting("x"), [(0, 1)], "what passed the first alone is forgotten with it");
    assert!(story.want(s[5], Mode::PR, 0).1.is_some());
    assert_eq!(story.want(s[6], Mode::PR, 0).1, None);
    for (session, grant) in [(s[0], reader), (s[2], joined)] {
        assert_eq!(grants(&story.release(session, grant)), []);
    }
}

#[test]
fn only_readers_join_and_only_readers_are_joined() {
    let mut story = phase(9);
    let s = [0; 6].map(|_| story.open());
    let reader = story.take(s[0], "x", Mode::CR);
    story.want(s[1], Mode::EX, 0);
    assert_eq!(story.want(s[2], Mode::CW, 0).1, None, "it goes with the reader, but it writes");
    story.release(s[0], reader);
    story.take(s[3], "y", Mode::CW);
    story.want_of(s[4], "y", Mode::EX, 0);
    assert_eq!(story.want_of(s[5], "y", Mode::CR, 0).1, None, "it reads, but beside one who writes");
}

#[test]
fn nobody_joins_past_a_conversion() {
    let mut story = phase(9);
    let s = [0; 4].map(|_| story.open());
    let reader = story.take(s[0], "x", Mode::PR);
    story.take(s[1], "x", Mode::PR);
    story.want(s[2], Mode::EX, 0);
    story.convert(s[0], reader, Mode::EX);
    assert_eq!(story.want(s[3], Mode::PR, 0).1, None);
}

#[test]
fn a_try_joins_like_a_request_and_nobody_in_nl_passes_anybody() {
    let mut story = phase(1);
    let s = [0; 5].map(|_| story.open());
    story.take(s[0], "x", Mode::PR);
    story.want(s[1], Mode::EX, 0);
    assert!(story.want(s[2], Mode::NL, 0).1.is_some());
    assert_eq!(story.waiting("x"), [(0, 0)]);
    let attempt = Acquire { wait: Wait::Try, ..story.wanting(s[3], "x", Mode::PR, 0) };
    assert_eq!(grants(&story.ask(attempt)), [attempt.request]);
    let again = Acquire { wait: Wait::Try, ..story.wanting(s[4], "x", Mode::PR, 0) };
    assert_eq!(answer_to(&story.ask(again), again.request), Some(refused(Refusal::WouldBlock)));
}

#[test]
fn a_joiner_that_wants_to_know_is_told_whom_it_blocks() {
    let mut story = phase(1);
    let s = [0; 3].map(|_| story.open());
    story.take(s[0], "x", Mode::PR);
    story.want(s[1], Mode::EX, 0);
    let joining = Acquire { notify: true, ..story.wanting(s[2], "x", Mode::PR, 0) };
    let effects = story.ask(joining);
    let grant = granted(&effects, joining.request).grant;
    assert_eq!(notices(&effects), [(s[2], Notice::Blocking { grant, wanted: Mode::EX, waiters: 1 })]);
}

/// G39: by class, first come first served within it, and nobody is passed too often.
#[test]
fn the_highest_class_is_next_and_within_it_the_oldest() {
    let mut story = priority(9);
    let s = [0; 6].map(|_| story.open());
    let mut held = (s[0], story.take(s[0], "x", Mode::EX));
    let classes = [1, 5, 3, 5];
    let asked: Vec<RequestId> = classes
        .iter()
        .zip(&s[1..])
        .map(|(&class, &session)| story.want(session, Mode::EX, class).0)
        .collect();
    for expected in [1, 3, 2, 0] {
        let effects = story.release(held.0, held.1);
        assert_eq!(grants(&effects), [asked[expected]]);
        held = (s[expected + 1], granted(&effects, asked[expected]).grant);
    }
    assert_eq!(story.table.counts().bypasses_total, 3, "the last one passed nobody");
}

/// G39: passed as often as may be, it is next.
#[test]
fn a_low_class_is_passed_as_often_as_may_be_and_then_it_is_next() {
    let mut story = priority(2);
    let s = [0; 7].map(|_| story.open());
    let mut held = (s[0], story.take(s[0], "x", Mode::EX));
    let (low, _) = story.want(s[1], Mode::EX, 0);
    let asked: Vec<RequestId> = s[2..6].iter().map(|&session| story.want(session, Mode::EX, 7).0).collect();
    for expected in [asked[0], asked[1], low, asked[2], asked[3]] {
        let effects = story.release(held.0, held.1);
        assert_eq!(grants(&effects), [expected]);
        let at = asked.iter().position(|&request| request == expected).map_or(1, |at| at + 2);
        held = (s[at], granted(&effects, expected).grant);
    }
    let counts = story.table.counts();
    assert_eq!((counts.bypasses_total, counts.overtakes_total), (2, 0));
}

#[test]
fn withdrawn_requests_use_up_nobodys_budget() {
    let mut story = priority(1);
    let s = [0; 4].map(|_| story.open());
    let held = story.take(s[0], "x", Mode::EX);
    story.want(s[1], Mode::EX, 0);
    for _ in 0..5 {
        let (urgent, _) = story.want(s[2], Mode::EX, 7);
        story.withdraw(s[2], urgent);
    }
    let (urgent, _) = story.want(s[2], Mode::EX, 7);
    assert_eq!(story.waiting("x"), [(0, 0), (7, 0)]);
    assert_eq!(grants(&story.release(s[0], held)), [urgent]);
}

/// G39: age lifts the lowest class to the highest.
#[test]
fn a_waiter_rises_by_a_class_with_each_step_of_its_age() {
    let mut story = priority(99);
    let s = [0; 4].map(|_| story.open());
    let held = story.take(s[0], "x", Mode::EX);
    let (low, _) = story.want(s[1], Mode::EX, 0);
    story.pass(250);
    assert_eq!(story.waiting("x"), [(2, 0)]);
    story.want(s[2], Mode::EX, 2);
    story.pass(10_000);
    assert_eq!(story.waiting("x"), [(7, 0), (7, 0)], "there is nothing above the highest");
    assert_eq!(grants(&story.release(s[0], held)), [low], "both are at the top, and one came first");
}

#[test]
fn neighbours_in_the_order_of_service_are_one_batch() {
    let mut story = priority(9);
    let s = [0; 6].map(|_| story.open());
    let held = story.take(s[0], "x", Mode::EX);
    story.want(s[1], Mode::EX, 1);
    let (reader, _) = story.want(s[2], Mode::PR, 3);
    story.want(s[3], Mode::PR, 0);
    let (other, _) = story.want(s[4], Mode::PR, 2);
    assert_eq!(grants(&story.release(s[0], held)), [reader, other], "the writer parts them from the third");
    assert_eq!(story.waiting("x"), [(1, 2), (0, 1)]);
}

#[test]
fn a_newcomer_enters_at_once_only_before_a_lower_class() {
    let mut story = priority(9);
    let s = [0; 6].map(|_| story.open());
    story.take(s[0], "x", Mode::PR);
    story.want(s[1], Mode::EX, 4);
    assert_eq!(story.want(s[2], Mode::PR, 4).1, None, "the same class came first");
    let attempt = Acquire { wait: Wait::Try, ..story.wanting(s[3], "x", Mode::PR, 4) };
    assert_eq!(answer_to(&story.ask(attempt), attempt.request), Some(refused(Refusal::WouldBlock)));
    let attempt = Acquire { wait: Wait::Try, ..story.wanting(s[4], "x", Mode::PR, 5) };
    assert_eq!(grants(&story.ask(attempt)), [attempt.request]);
}

#[test]
fn who_rose_past_a_blocked_one_enters_when_somebody_arrives() {
    let mut story = priority(9);
    let s = [0; 6].map(|_| story.open());
    story.take(s[0], "x", Mode::PR);
    let (first, _) = story.want(s[1], Mode::EX, 1);
    let (reader, _) = story.want(s[2], Mode::PR, 1);
    story.want(s[3], Mode::EX, 5);
    assert_eq!(grants(&story.withdraw(s[1], first)), [], "the other writer is of a higher class");
    assert_eq!(grants(&story.pass(9_000)), [], "age alone wakes nobody");
    let late = story.wanting(s[4], "x", Mode::EX, 0);
    assert_eq!(grants(&story.ask(late)), [reader], "all are at the top, and it came first");
}

/// G40: a holder waits with the class of those who wait for it.
#[test]
fn a_waiter_inherits_the_class_that_waits_for_what_it_holds() {
    let mut story = priority(9);
    let s = [0; 6].map(|_| story.open());
    let outer = story.take(s[0], "outer", Mode::EX);
    story.take(s[1], "inner", Mode::EX);
    story.want_of(s[2], "outer", Mode::EX, 3);
    let (holder, _) = story.want_of(s[1], "outer", Mode::EX, 0);
    assert_eq!(story.waiting("outer"), [(3, 0), (0, 0)]);
    story.want_of(s[3], "inner", Mode::EX, 6);
    assert_eq!(story.waiting("outer"), [(3, 0), (6, 0)]);
    assert_eq!(grants(&story.release(s[0], outer)), [holder]);
}

/// G40: and falls back at once when they have gone.
#[test]
fn what_was_inherited_falls_back_when_its_cause_is_gone() {
    let mut story = priority(9);
    let s = [0; 6].map(|_| story.open());
    let outer = story.take(s[0], "outer", Mode::EX);
    let inner = story.take(s[1], "inner", Mode::EX);
    let (middle, _) = story.want_of(s[2], "outer", Mode::EX, 3);
    story.want_of(s[1], "outer", Mode::EX, 1);
    let (urgent, _) = story.want_of(s[3], "inner", Mode::EX, 6);
    let (also, _) = story.want_of(s[4], "inner", Mode::EX, 5);
    assert_eq!(story.waiting("outer"), [(3, 0), (6, 0)]);
    story.withdraw(s[3], urgent);
    assert_eq!(story.waiting("outer"), [(3, 0), (5, 0)], "the next highest");
    assert_eq!(grants(&story.release(s[1], inner)), [also]);
    assert_eq!(story.waiting("outer"), [(3, 0), (1, 0)], "it holds nothing any more");
    assert_eq!(grants(&story.release(s[0], outer)), [middle]);
}

#[test]
fn classes_are_inherited_over_eight_removes_and_no_more() {
    const NAMES: [&str; 11] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"];
    let mut story = priority(9);
    let s = [0; 12].map(|_| story.open());
    for (&session, name) in s.iter().zip(NAMES) {
        story.take(session, name, Mode::EX);
    }
    // Each but the first waits for the lock of the one before it, which itself waits.
    for (&session, name) in s[1..11].iter().zip(NAMES) {
        story.want_of(session, name, Mode::EX, 0);
    }
    story.want_of(s[0], NAMES[10], Mode::EX, 7);
    let classes: Vec<u8> = NAMES.map(|name| story.waiting(name)[0].0).to_vec();
    assert_eq!(classes, [0, 0, 7, 7, 7, 7, 7, 7, 7, 7, 7], "from the last back: itself and eight more");
}

#[test]
fn a_circle_of_owners_does_not_keep_a_class_alive() {
    let mut story = priority(9);
    let s = [0; 4].map(|_| story.open());
    story.take(s[0], "a", Mode::EX);
    story.take(s[1], "b", Mode::EX);
    story.want_of(s[0], "b", Mode::EX, 0);
    story.want_of(s[1], "a", Mode::EX, 0);
    let (urgent, _) = story.want_of(s[2], "a", Mode::EX, 7);
    assert_eq!((story.waiting("a")[0].0, story.waiting("b")[0].0), (7, 7));
    story.withdraw(s[2], urgent);
    assert_eq!((story.waiting("a")[0].0, story.waiting("b")[0].0), (0, 0));
}

#[test]
fn another_owner_of_the_session_inherits_nothing() {
    let mut story = priority(9);
    let s = [0; 4].map(|_| story.open());
    story.take(s[0], "outer", Mode::EX);
    story.take(s[1], "inner", Mode::EX);
    let waiting = Acquire { owner: OwnerId(5), ..story.wanting(s[1], "outer", Mode::EX, 0) };
    story.ask(waiting);
    story.want_of(s[2], "inner", Mode::EX, 7);
    assert_eq!(story.waiting("outer"), [(0, 0)]);
}

#[test]
fn a_try_uses_what_its_owner_inherits() {
    let mut story = priority(9);
    let s = [0; 5].map(|_| story.open());
    story.take(s[0], "outer", Mode::PR);
    story.want_of(s[1], "outer", Mode::EX, 4);
    story.take(s[2], "inner", Mode::EX);
    let attempt = Acquire { wait: Wait::Try, ..story.wanting(s[2], "outer", Mode::PR, 0) };
    assert_eq!(answer_to(&story.ask(attempt), attempt.request), Some(refused(Refusal::WouldBlock)));
    story.want_of(s[3], "inner", Mode::EX, 5);
    let attempt = Acquire { wait: Wait::Try, ..story.wanting(s[2], "outer", Mode::PR, 0) };
    assert_eq!(grants(&story.ask(attempt)), [attempt.request]);
}

#[test]
fn tables_that_differ_in_a_turn_have_other_digests() {
    let waiting = |class: u8, early: u64| {
        let mut story = priority(9);
        let s = [0; 2].map(|_| story.open());
        story.take(s[0], "x", Mode::EX);
        story.now = story.now.after_millis(early);
        story.want(s[1], Mode::EX, class);
        story.table.digest()
    };
    assert_eq!(waiting(1, 0), waiting(1, 0));
    assert_ne!(waiting(1, 0), waiting(2, 0));
    assert_ne!(waiting(1, 0), waiting(1, 50), "when it joined decides who is next");
}
