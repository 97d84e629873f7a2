//! Grants that stay with the client: entered and left without a word, and given up when the server wants them.

use super::*;
use crate::owner::{fresh_owner, holder_of, owner_of_this_thread};
use crate::transport::tests::Shown;
use fairlock_protocol::Mode;
use fairlock_shm::word::{Entry, Generation, Holder, Leaving, Seen};

const FIRST: Generation = Generation(1);

/// A talk through memory, with the server's end of it.
struct Cached {
    talk: Talk,
    shown: Shown,
}

fn plain(owner: OwnerId) -> Arc<Spec> {
    Arc::new(Spec { owner, cacheable: true, ..(*spec(0)).clone() })
}

impl Cached {
    fn opened() -> Cached {
        let (mut talk, shown) = (Talk::opened(), Shown::new());
        talk.stream.shares(&shown.memory);
        Cached { talk, shown }
    }

    /// This thread has the lock as grant 1, which stays, in word 7.
    fn kept() -> (Cached, Arc<Hold>) {
        let mut cached = Cached::opened();
        let id = cached.talk.acquire_as(1001, 1, plain(owner_of_this_thread()));
        cached.talk.hear_ok(1002, id, FLAG_KEPT | FLAG_RENEWED, &granted(1));
        cached.shown.segment.word(7).unwrap().grant(FIRST, false);
        cached.note(1, 7, FIRST);
        let hold = cached.talk.taken();
        cached.talk.said();
        (cached, hold)
    }

    fn note(&mut self, slot: u32, word: u32, generation: Generation) {
        let Reply::Granted(grant) = granted(slot) else { unreachable!() };
        let note = Reply::Cached { grant: grant.grant, word, generation: generation.0 };
        self.talk.hear_ok(1002, RequestId::NOTICE, 0, &note);
    }

    fn word(&self) -> &fairlock_shm::word::Word {
        self.shown.segment.word(7).unwrap()
    }

    fn enter(&mut self, owner: OwnerId) -> Option<Arc<Hold>> {
        match self.talk.stream.enter(&plain(owner)) {
            Attempt::Entered(hold) => Some(hold),
            _ => None,
        }
    }

    fn refuses(&mut self, spec: Spec) -> bool {
        matches!(self.talk.stream.enter(&Arc::new(spec)), Attempt::Refused(Refusal::AlreadyHeld))
    }
}

impl Talk {
    /// The hold that was just granted.
    fn taken(&mut self) -> Arc<Hold> {
        let granted = |event| match event {
            Event::Answered(_, Answer::Granted(hold)) => Some(hold),
            _ => None,
        };
        self.stream.take_events().into_iter().find_map(granted).unwrap()
    }
}

#[test]
fn only_a_plain_request_through_memory_says_that_its_grant_may_stay() {
    let cacheable = |talk: &mut Talk| {
        let bytes = std::mem::take(&mut talk.stream.out);
        let (frame, _) = Frame::split(&bytes).unwrap().unwrap();
        let Request::Acquire(acquire) = Request::decode(&frame).unwrap() else { panic!("{frame:?}") };
        acquire.cacheable
    };
    let mut cached = Cached::opened();
    cached.talk.acquire_as(1001, 1, plain(fresh_owner()));
    assert!(cacheable(&mut cached.talk));
    cached.talk.acquire(1002, 2);
    assert!(!cacheable(&mut cached.talk));
    let mut over_a_socket = Talk::opened();
    over_a_socket.acquire_as(1001, 1, plain(fresh_owner()));
    assert!(!cacheable(&mut over_a_socket));
}

#[test]
fn a_grant_that_stays_is_left_and_entered_by_any_thread_without_a_word() {
    let (mut cached, hold) = Cached::kept();
    assert_eq!(cached.word().look(FIRST), Seen::Held);
    cached.talk.stream.release(at(1003), &hold);
    assert_eq!(cached.word().look(FIRST), Seen::Free);
    for owner in [owner_of_this_thread(), fresh_owner(), OwnerId(77)] {
        let entered = cached.enter(owner).unwrap();
        assert_eq!((entered.grant(), entered.facts()), (hold.grant(), hold.facts()));
        assert!(entered.check(&cached.talk.lease, at(1004)).is_ok());
        assert!(cached.word().is_held(FIRST, holder_of(owner)));
        assert!(cached.enter(fresh_owner()).is_none(), "one is inside");
        cached.talk.stream.release(at(1005), &entered);
        assert_eq!(entered.check(&cached.talk.lease, at(1005)), Err(LostCause::Released));
    }
    assert_eq!(cached.talk.said(), [""; 0]);
}

#[test]
fn one_who_leaves_while_somebody_waits_says_look_and_enters_no_more() {
    let (mut cached, hold) = Cached::kept();
    cached.word().want();
    cached.talk.stream.release(at(1003), &hold);
    assert_eq!(cached.talk.said(), ["3: look ack 1"]);
    assert!(cached.enter(fresh_owner()).is_none());
    assert!(cached.word().take(FIRST));
    assert!(cached.enter(fresh_owner()).is_none());
    assert_eq!(cached.talk.said(), [""; 0], "the request that follows says enough");
    // Another server may still know the grant as ours.
    cached.talk.resume(1010, 0);
    assert!(cached.talk.said().iter().any(|said| said.contains("release 1")));
}

#[test]
fn one_who_is_inside_is_refused_by_himself_because_the_server_does_not_know_him() {
    let (mut cached, hold) = Cached::kept();
    let mine = owner_of_this_thread();
    let spec = |owner| (*plain(owner)).clone();
    assert!(cached.refuses(spec(mine)));
    assert!(cached.refuses(Spec { mode: fairlock_protocol::Mode::PR, cacheable: false, ..spec(mine) }));
    assert!(cached.refuses(Spec { namespace: "default".into(), ..spec(mine) }), "the same namespace");
    assert!(!cached.refuses(Spec { namespace: "other".into(), ..spec(mine) }));
    assert!(!cached.refuses(Spec { mode: fairlock_protocol::Mode::NL, ..spec(mine) }));
    assert!(!cached.refuses(spec(fresh_owner())));
    assert!(cached.talk.stream.meets_itself(&[plain(mine)]));
    assert!(!cached.talk.stream.meets_itself(&[plain(fresh_owner())]));
    cached.talk.stream.release(at(1003), &hold);
    assert!(!cached.talk.stream.meets_itself(&[plain(mine)]));
    assert_eq!(
        cached.word().enter(FIRST, holder_of(mine), cached.shown.memory.leaving()),
        fairlock_shm::word::Entry::Entered
    );
    assert!(cached.refuses(spec(mine)), "also when only the word knows");
}

#[test]
fn the_one_inside_enters_again_when_he_says_so_and_leaves_with_the_last_guard() {
    let (mut cached, hold) = Cached::kept();
    let again =
        Arc::new(Spec { reentrant: true, cacheable: false, ..(*plain(owner_of_this_thread())).clone() });
    let Attempt::Entered(same) = cached.talk.stream.enter(&again) else { panic!("refused") };
    assert!(Arc::ptr_eq(&same, &hold));
    cached.talk.stream.release(at(1003), &hold);
    assert!(hold.check(&cached.talk.lease, at(1003)).is_ok());
    cached.talk.stream.release(at(1004), &hold);
    assert_eq!(cached.word().look(FIRST), Seen::Free);
    assert_eq!(cached.talk.said(), [""; 0]);
}

#[test]
fn a_note_that_comes_after_the_release_is_ignored() {
    let mut cached = Cached::opened();
    let id = cached.talk.acquire_as(1001, 1, plain(fresh_owner()));
    cached.talk.hear_ok(1002, id, FLAG_KEPT | FLAG_RENEWED, &granted(1));
    let hold = cached.talk.taken();
    cached.talk.stream.release(at(1003), &hold);
    cached.shown.segment.word(7).unwrap().grant(FIRST, false);
    cached.note(1, 7, FIRST);
    assert!(cached.talk.stream.tenures.is_empty());
    assert_eq!(cached.word().look(FIRST), Seen::Held, "the server takes it back by itself");
    assert_eq!(cached.talk.said().last().unwrap(), "3: release 1 ack 1");
}

#[test]
fn a_request_of_the_holder_that_left_before_the_note_is_refused_instead_of_waiting_for_itself() {
    let mut cached = Cached::opened();
    let owner = owner_of_this_thread();
    let id = cached.talk.acquire_as(1001, 1, plain(owner));
    cached.talk.hear_ok(1002, id, FLAG_KEPT | FLAG_RENEWED, &granted(1));
    cached.talk.acquire_as(1003, 2, plain(owner));
    cached.talk.acquire_as(1003, 3, plain(fresh_owner()));
    cached.shown.segment.word(7).unwrap().grant(FIRST, false);
    cached.note(1, 7, FIRST);
    assert_eq!(cached.talk.told(), ["1 granted 1", "2 ALREADY_HELD"]);
    assert_eq!(cached.talk.said().last().unwrap(), "5: cancel 3 ack 1");
}

#[test]
fn a_conversion_goes_on_by_messages_and_nobody_enters_the_word_again() {
    let (mut cached, hold) = Cached::kept();
    let ask = Ask::Convert { grant: hold.grant(), mode: fairlock_protocol::Mode::PR, wait: Wait::Forever };
    cached.talk.stream.submit(at(1003), ask, Some(9), false).unwrap();
    assert_eq!(cached.word().void(FIRST), Seen::Held);
    assert!(hold.check(&cached.talk.lease, at(1004)).is_ok(), "its word means nothing any more");
    assert!(cached.refuses((*plain(owner_of_this_thread())).clone()), "the server still does not know him");
    cached.talk.stream.release(at(1005), &hold);
    let said = cached.talk.said();
    assert!(said[0].starts_with("3: convert") && said[1] == "4: release 1 ack 1", "{said:?}");
    assert!(cached.talk.stream.tenures.is_empty());
}

#[test]
fn a_note_that_comes_after_the_conversion_was_asked_for_changes_nothing() {
    let mut cached = Cached::opened();
    let id = cached.talk.acquire_as(1001, 1, plain(owner_of_this_thread()));
    cached.talk.hear_ok(1002, id, FLAG_KEPT | FLAG_RENEWED, &granted(1));
    let hold = cached.talk.taken();
    let ask = Ask::Convert { grant: hold.grant(), mode: fairlock_protocol::Mode::PR, wait: Wait::Forever };
    cached.talk.stream.submit(at(1003), ask, Some(9), false).unwrap();
    // The note was on its way; the server gives the word up when it is asked for the conversion, and uses it again.
    cached.shown.segment.word(7).unwrap().grant(FIRST, false);
    assert_eq!(cached.word().void(FIRST), Seen::Held);
    cached.note(1, 7, FIRST);
    assert!(hold.check(&cached.talk.lease, at(1004)).is_ok(), "it goes on by messages");
    assert!(cached.refuses((*plain(owner_of_this_thread())).clone()), "the server does not know him");
    let second = Generation(2);
    cached.word().grant(second, false);
    cached.talk.stream.release(at(1005), &hold);
    assert_eq!(cached.talk.said().last().unwrap(), "4: release 1 ack 1", "the server waits for it");
    assert!(cached.word().is_held(second, Holder::GRANTED), "the word is somebody else's");
    assert!(cached.talk.stream.tenures.is_empty());
}

#[test]
fn a_broken_one_is_renounced_before_it_is_confirmed() {
    let (mut cached, hold) = Cached::kept();
    let Reply::Granted(grant) = granted(1) else { unreachable!() };
    let before = cached.shown.memory.edition();
    cached.talk.hear_ok(1004, RequestId::NOTICE, 0, &Reply::Broken { grant: grant.grant, forced: false });
    assert_ne!(cached.shown.memory.edition(), before, "prepared locks look again");
    assert!(!cached.word().is_held(FIRST, Holder::GRANTED));
    assert_eq!(hold.check(&cached.talk.lease, at(1005)), Err(LostCause::Broken));
    assert_eq!(cached.talk.said(), ["3: confirm 1 ack 1"]);
    cached.talk.stream.release(at(1006), &hold);
    assert_eq!(
        cached.word().look(FIRST),
        Seen::Free,
        "left all the same, so that the word can be used again"
    );
    assert_eq!(cached.talk.said(), ["4: look ack 1"]);
}

#[test]
fn a_broken_one_that_only_its_word_knows_is_confirmed_when_it_was_left() {
    let (mut cached, hold) = Cached::kept();
    cached.talk.stream.confirm_when_released();
    cached.talk.stream.release(at(1003), &hold);
    let (holder, leaving) = (Holder::new(5), cached.shown.memory.leaving());
    assert_eq!(cached.word().enter(FIRST, holder, leaving), fairlock_shm::word::Entry::Entered);
    let Reply::Granted(grant) = granted(1) else { unreachable!() };
    cached.talk.hear_ok(1004, RequestId::NOTICE, 0, &Reply::Broken { grant: grant.grant, forced: false });
    assert!(!cached.word().is_held(FIRST, holder));
    let due = cached.talk.stream.due().unwrap();
    cached.talk.stream.tick(due);
    assert_eq!(cached.talk.said(), [""; 0]);
    let _ = cached.word().leave(FIRST, leaving);
    assert!(cached.word().take(FIRST), "the server is quicker than the next look");
    let due = cached.talk.stream.due().unwrap();
    cached.talk.stream.tick(due);
    assert_eq!(cached.talk.said(), ["3: confirm 1 ack 1"]);
    assert_eq!(cached.talk.stream.due(), None);
}

#[test]
fn nobody_is_waited_for_in_a_word_that_the_server_took() {
    let (mut cached, hold) = Cached::kept();
    cached.talk.stream.confirm_when_released();
    cached.talk.stream.release(at(1003), &hold);
    assert!(cached.word().take(FIRST));
    let Reply::Granted(grant) = granted(1) else { unreachable!() };
    cached.talk.hear_ok(1004, RequestId::NOTICE, 0, &Reply::Broken { grant: grant.grant, forced: false });
    assert_eq!(cached.talk.said(), ["3: confirm 1 ack 1"]);
    assert_eq!(cached.talk.stream.due(), None);
    assert!(!cached.talk.stream.renounce_all());
}

/// The word of a lock that went on by messages was given for another lock.
#[test]
fn a_word_is_remembered_for_whom_it_is_now() {
    let (mut cached, hold) = Cached::kept();
    let convert = Ask::Convert { grant: hold.grant(), mode: Mode::PR, wait: Wait::Forever };
    cached.talk.stream.submit(at(1003), convert, Some(2), false).unwrap();
    let owner = owner_of_this_thread();
    let other = Arc::new(Spec { name: b"other".as_slice().into(), ..(*plain(owner)).clone() });
    let id = cached.talk.acquire_as(1004, 3, Arc::clone(&other));
    cached.talk.hear_ok(1005, id, FLAG_KEPT, &granted(2));
    let second = Generation(FIRST.0 + 1);
    cached.shown.segment.word(7).unwrap().grant(second, false);
    cached.note(2, 7, second);
    cached.talk.stream.release(at(1006), &hold);
    assert!(
        matches!(cached.talk.stream.enter(&other), Attempt::Refused(Refusal::AlreadyHeld)),
        "he is inside"
    );
}

#[test]
fn a_forced_end_is_seen_by_the_next_check() {
    let (cached, hold) = Cached::kept();
    assert_eq!(cached.word().void(FIRST), Seen::Held);
    assert_eq!(hold.check(&cached.talk.lease, at(1003)), Err(LostCause::Broken));
}

#[test]
fn a_broken_connection_leaves_guards_and_no_words() {
    let (mut cached, hold) = Cached::kept();
    cached.shown.memory.close();
    cached.talk.stream.disconnected();
    assert!(cached.enter(fresh_owner()).is_none());
    assert_eq!(cached.word().void(FIRST), Seen::Held);
    assert!(hold.check(&cached.talk.lease, at(1003)).is_ok(), "until the lease ends");
}

#[test]
fn what_only_a_word_knew_is_given_back_by_a_message_when_the_session_goes_on_without_words() {
    let (mut cached, hold) = Cached::kept();
    cached.talk.stream.release(at(1003), &hold);
    // Somebody with a prepared lock is inside when the server gives the words up, and leaves before this is noticed.
    let inside = cached.word().enter(FIRST, Holder::new(5), Leaving::Exchange);
    assert_eq!((inside, cached.word().void(FIRST)), (Entry::Entered, Seen::Held));
    assert!(cached.word().leave(FIRST, Leaving::Exchange));
    assert_eq!(cached.talk.said(), [""; 0]);
    cached.talk.resume(1004, 0);
    assert_eq!(cached.talk.said().last().unwrap(), "3: release 1 ack 1");
    // What is held goes on, and goes back with its guard.
    let (mut cached, hold) = Cached::kept();
    cached.talk.resume(1004, 0);
    assert!(hold.check(&cached.talk.lease, at(1005)).is_ok() && cached.talk.said().len() == 2);
    cached.talk.stream.release(at(1005), &hold);
    assert_eq!(cached.talk.said(), ["4: release 1 ack 1"]);
}

/// The server that goes on knows the grant, and not whose it is.
#[test]
fn one_who_is_inside_a_word_that_is_gone_is_known_to_his_client_alone() {
    let (mut cached, hold) = Cached::kept();
    let mine = owner_of_this_thread();
    let look = |cached: &mut Cached| {
        assert!(cached.refuses((*plain(mine)).clone()) && !cached.refuses((*plain(fresh_owner())).clone()));
        assert!(cached.talk.stream.meets_itself(&[plain(mine)]));
        assert!(!cached.talk.stream.meets_itself(&[plain(fresh_owner())]));
        let again = Arc::new(Spec { reentrant: true, cacheable: false, ..(*plain(mine)).clone() });
        let Attempt::Entered(same) = cached.talk.stream.enter(&again) else { panic!("refused") };
        cached.talk.stream.release(at(1003), &same);
    };
    cached.talk.stream.disconnected();
    look(&mut cached);
    cached.talk.resume(1004, 0);
    look(&mut cached);
    assert_eq!(cached.talk.said().len(), 2, "HELLO and RESUME");
    cached.talk.stream.release(at(1005), &hold);
    assert_eq!(cached.talk.said(), ["4: release 1 ack 1"]);
    assert!(!cached.refuses((*plain(mine)).clone()) && !cached.talk.stream.meets_itself(&[plain(mine)]));
    // Also when only the word knew.
    let (mut cached, hold) = Cached::kept();
    cached.talk.stream.release(at(1003), &hold);
    assert_eq!(cached.word().enter(FIRST, holder_of(mine), Leaving::Barrier), Entry::Entered);
    cached.talk.resume(1004, 0);
    assert!(cached.refuses((*plain(mine)).clone()) && cached.talk.stream.meets_itself(&[plain(mine)]));
}

#[test]
fn one_whom_only_a_word_knew_keeps_it_on_another_node_until_he_leaves() {
    let (mut cached, hold) = Cached::kept();
    cached.talk.stream.release(at(1003), &hold);
    let holder = Holder::new(9);
    assert_eq!(cached.word().enter(FIRST, holder, Leaving::Barrier), Entry::Entered);
    cached.talk.said();
    cached.talk.resume(1010, 0);
    cached.talk.said();
    cached.talk.stream.tick(at(1011));
    assert!(cached.word().is_held(FIRST, holder), "he is inside and notices nothing");
    assert_eq!(cached.talk.said(), Vec::<String>::new(), "what he is inside is not given back");
    assert!(cached.word().leave(FIRST, Leaving::Barrier));
    assert_eq!(
        cached.word().enter(FIRST, holder, Leaving::Barrier),
        Entry::Refused,
        "nobody enters it again"
    );
    cached.talk.stream.tick(cached.talk.stream.due().unwrap());
    assert_eq!(cached.talk.said(), ["4: release 1 ack 1"]);
    assert_eq!(cached.talk.stream.due(), None);
}

/// An operator ends a session that waits for its program: what somebody is inside of is not given back before he has stopped.
#[test]
fn one_whom_only_a_word_of_before_knows_is_waited_for_when_his_session_is_killed() {
    let (mut cached, hold) = Cached::kept();
    cached.talk.stream.release(at(1003), &hold);
    let holder = Holder::new(9);
    assert_eq!(cached.word().enter(FIRST, holder, Leaving::Barrier), Entry::Entered);
    cached.talk.resume(1010, 0);
    cached.talk.said();
    assert!(cached.talk.stream.renounce_all(), "somebody is inside");
    assert!(!cached.word().is_held(FIRST, holder), "he finds out");
    cached.talk.stream.tick(at(1200));
    // Said again, and the way is lost meanwhile.
    assert!(cached.talk.stream.renounce_all());
    cached.talk.resume(1300, 0);
    cached.talk.said();
    assert!(cached.talk.stream.renounce_all());
    cached.talk.stream.tick(at(1400));
    assert_eq!(cached.talk.said(), [""; 0]);
    let _ = cached.word().leave(FIRST, Leaving::Barrier);
    cached.talk.stream.tick(cached.talk.stream.due().unwrap());
    assert_eq!(cached.talk.said(), ["5: release 1 ack 1"]);
    assert!(!cached.talk.stream.renounce_all());
}

/// The way is lost between a kill, or a break, and the moment in which he leaves.
#[test]
fn who_is_inside_is_waited_for_on_the_next_connection_too() {
    for broken in [false, true] {
        let (mut cached, hold) = Cached::kept();
        cached.talk.stream.confirm_when_released();
        cached.talk.stream.release(at(1003), &hold);
        let holder = Holder::new(9);
        assert_eq!(cached.word().enter(FIRST, holder, Leaving::Barrier), Entry::Entered);
        let Reply::Granted(grant) = granted(1) else { unreachable!() };
        let notice = Reply::Broken { grant: grant.grant, forced: false };
        if broken {
            cached.talk.hear_ok(1004, RequestId::NOTICE, 0, &notice);
        } else {
            assert!(cached.talk.stream.renounce_all());
        }
        cached.talk.resume(1010, 0);
        // The server's words of a connection that is gone are over.
        let _ = cached.word().void(FIRST);
        if broken {
            cached.talk.hear_ok(1011, RequestId::NOTICE, 0, &notice);
        }
        let resumed = cached.talk.said();
        assert!(
            !resumed.iter().any(|said| said.contains("release") || said.contains("confirm")),
            "{resumed:?}"
        );
        cached.talk.stream.tick(at(1200));
        assert_eq!(cached.talk.said(), [""; 0]);
        let _ = cached.word().leave(FIRST, Leaving::Barrier);
        cached.talk.stream.tick(cached.talk.stream.due().unwrap());
        let said = cached.talk.said();
        assert!(
            said.len() == 1 && said[0].contains(if broken { "confirm 1" } else { "release 1" }),
            "{said:?}"
        );
    }
}

/// An operator of the node that took the session up breaks what is held in a word of the one before.
#[test]
fn one_whom_only_a_word_of_before_knows_is_broken_before_that_is_confirmed() {
    for late in [false, true] {
        let (mut cached, hold) = Cached::kept();
        if late {
            cached.talk.stream.confirm_when_released();
        }
        cached.talk.stream.release(at(1003), &hold);
        let holder = Holder::new(9);
        assert_eq!(cached.word().enter(FIRST, holder, Leaving::Barrier), Entry::Entered);
        cached.talk.resume(1010, 0);
        cached.talk.said();
        let Reply::Granted(grant) = granted(1) else { unreachable!() };
        let broken = Reply::Broken { grant: grant.grant, forced: false };
        cached.talk.hear_ok(1011, RequestId::NOTICE, 0, &broken);
        assert!(!cached.word().is_held(FIRST, holder), "he finds out");
        assert_eq!(cached.talk.said().len(), usize::from(!late), "confirmed at once, or when he has left");
        let _ = cached.word().leave(FIRST, Leaving::Barrier);
        if let Some(due) = cached.talk.stream.due() {
            cached.talk.stream.tick(due);
        }
        assert_eq!(cached.talk.said().len(), usize::from(late));
    }
}

#[test]
fn an_end_that_waits_for_the_program_ends_what_only_words_know_and_opens_no_word_again() {
    for someone in [true, false] {
        let (mut cached, hold) = Cached::kept();
        cached.talk.stream.release(at(1003), &hold);
        if someone {
            let inside = cached.word().enter(FIRST, Holder::new(5), Leaving::Exchange);
            assert_eq!(inside, Entry::Entered);
        }
        assert_eq!(
            cached.talk.stream.take_all_away(LostCause::Killed),
            someone,
            "there is a guard to wait for"
        );
        assert!(!cached.word().is_held(FIRST, Holder::new(5)));
        assert!(cached.enter(fresh_owner()).is_none());
        assert!(!someone || cached.word().leave(FIRST, Leaving::Exchange));
        assert_ne!(cached.word().enter(FIRST, Holder::new(6), Leaving::Exchange), Entry::Entered);
    }
}
