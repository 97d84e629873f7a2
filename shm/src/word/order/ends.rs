//! The ends of a tenure that its holder did not choose: by force, by an operator's word to the library, by death.

use super::*;

/// Ends the tenure and then lets the next one in, which is said by the number.
type End = fn(&Word, &Plain) -> Seen;

const VOIDED: End = |word, next| {
    let seen = word.void(G);
    next.store(1, Ordering::Release);
    seen
};

const RENOUNCED: End = |word, next| {
    word.renounce(G);
    next.store(1, Ordering::Release);
    Seen::Neither
};

/// Whether a thread believes to be inside though it knows that somebody else was let in.
fn is_deceived(word: &Word, holder: Holder, next: &Plain) -> bool {
    let somebody_else = next.load(Ordering::Acquire) == 1;
    somebody_else && word.is_held(G, holder)
}

/// While a tenure is ended its holder looks whether it still holds and leaves late, and another thread tries to enter.
fn an_end_is_seen_before_the_next_is_let_in(end: End) {
    model(Some(3), move || {
        let shared = Arc::new(Shared::default());
        shared.word.grant(G, false);
        let next = Arc::new(Plain::new(0));
        let (theirs, said) = (Arc::clone(&shared), Arc::clone(&next));
        let holder = thread::spawn(move || {
            let deceived = is_deceived(&theirs.word, Holder::GRANTED, &said);
            let _ = theirs.word.leave(G, Leaving::Exchange);
            deceived
        });
        let (theirs, said) = (Arc::clone(&shared), Arc::clone(&next));
        let another = thread::spawn(move || {
            if theirs.word.enter(G, ME, Leaving::Exchange) != Entry::Entered {
                return false;
            }
            let deceived = is_deceived(&theirs.word, ME, &said);
            let _ = theirs.word.leave(G, Leaving::Exchange);
            deceived
        });
        let seen = end(&shared.word, &next);
        let holder = holder.join().expect("the thread ends");
        let another = another.join().expect("the thread ends");
        assert!(!holder && !another, "held what another was given");
        // All have left: the word is the server's again, at once or by the acknowledgement.
        assert!(seen == Seen::Free || shared.word.take(G), "the word is lost");
    });
}

#[test]
fn a_forced_end_is_seen_by_whoever_knows_that_another_was_let_in() {
    an_end_is_seen_before_the_next_is_let_in(VOIDED);
}

#[test]
fn a_renounced_tenure_is_held_and_entered_by_nobody_once_it_is_confirmed() {
    an_end_is_seen_before_the_next_is_let_in(RENOUNCED);
}

#[test]
#[should_panic(expected = "held what another was given")]
fn mutant_a_forced_end_says_so_in_wanted_only() {
    an_end_is_seen_before_the_next_is_let_in(|word, next| {
        word.wanted.store(VOID, Ordering::SeqCst);
        next.store(1, Ordering::Release);
        Seen::Held
    });
}

#[test]
#[should_panic(expected = "held what another was given")]
fn mutant_the_next_is_let_in_before_the_exchange() {
    an_end_is_seen_before_the_next_is_let_in(|word, next| {
        next.store(1, Ordering::Release);
        word.void(G)
    });
}

#[test]
#[should_panic(expected = "held what another was given")]
fn mutant_wanted_is_cleared_by_a_forced_end() {
    an_end_is_seen_before_the_next_is_let_in(|word, next| {
        word.wanted.store(0, Ordering::SeqCst);
        let old = word.state.swap(pack(REVOKED, G, Holder::GRANTED), Ordering::SeqCst);
        next.store(1, Ordering::Release);
        seen(old, G)
    });
}

#[test]
#[should_panic(expected = "held what another was given")]
fn mutant_a_tenure_is_renounced_in_its_state_only() {
    an_end_is_seen_before_the_next_is_let_in(|word, next| {
        let mut state = word.state.load(Ordering::Relaxed);
        while seen(state, G) == Seen::Held {
            let over = pack(REVOKED, G, Holder::GRANTED);
            match word.state.compare_exchange(state, over, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        next.store(1, Ordering::Release);
        Seen::Neither
    });
}

#[test]
#[should_panic(expected = "held what another was given")]
fn mutant_a_tenure_is_renounced_in_wanted_and_free_is_only_looked_at() {
    an_end_is_seen_before_the_next_is_let_in(|word, next| {
        word.wanted.store(VOID, Ordering::Relaxed);
        let (held, over) = (pack(HELD, G, Holder::GRANTED), pack(REVOKED, G, Holder::GRANTED));
        if word.state.load(Ordering::Relaxed) == held {
            let _ = word.state.compare_exchange(held, over, Ordering::AcqRel, Ordering::Relaxed);
        }
        next.store(1, Ordering::Release);
        Seen::Neither
    });
}

#[test]
#[should_panic(expected = "the word is lost")]
fn mutant_a_free_word_is_renounced_into_revoked() {
    an_end_is_seen_before_the_next_is_let_in(|word, next| {
        word.wanted.store(VOID, Ordering::SeqCst);
        let _ = word.state.swap(pack(REVOKED, G, Holder::GRANTED), Ordering::SeqCst);
        next.store(1, Ordering::Release);
        Seen::Neither
    });
}

/// How the server comes to use a word again after a forced end.
#[derive(Clone, Copy)]
struct Reuse {
    /// Whether it does so when nobody was inside.
    at_once: fn(Seen) -> bool,
    /// What it takes for the acknowledgement, when a hint has come.
    acknowledged: fn(&Word) -> bool,
}

const CAREFUL: Reuse = Reuse { at_once: |seen| seen == Seen::Free, acknowledged: |word| word.take(G) };

/// A word ended by force is given again while its last holder's late store, and another thread, are still on their way.
fn a_new_tenure_is_not_spoiled(reuse: Reuse) {
    model(Some(3), move || {
        let shared = Arc::new(Shared::default());
        shared.word.grant(G, false);
        let theirs = Arc::clone(&shared);
        let holder = thread::spawn(move || {
            SOUND.visit(&theirs);
            theirs.hints.ends();
        });
        let theirs = Arc::clone(&shared);
        let another = thread::spawn(move || {
            SOUND.attempt(&theirs, ME);
            theirs.hints.ends();
        });
        let seen = shared.word.void(G);
        let mut usable = (reuse.at_once)(seen);
        while !usable && shared.hints.wait(2) {
            usable = (reuse.acknowledged)(&shared.word);
        }
        if usable {
            shared.word.grant(NEXT, false);
        }
        holder.join().expect("the thread ends");
        another.join().expect("the thread ends");
        if !usable {
            // The late store had seen no `wanted` yet, so that no hint came: the server finds it when it comes by.
            assert!(shared.word.take(G), "the word is lost");
            shared.word.grant(NEXT, false);
        }
        assert!(shared.word.is_held(NEXT, Holder::GRANTED), "a late store spoiled the new tenure");
    });
}

#[test]
fn a_word_is_given_again_only_when_no_store_can_come_late() {
    a_new_tenure_is_not_spoiled(CAREFUL);
}

#[test]
#[should_panic(expected = "spoiled the new tenure")]
fn mutant_a_word_is_given_again_without_acknowledgement() {
    a_new_tenure_is_not_spoiled(Reuse { at_once: |_| true, ..CAREFUL });
}

#[test]
#[should_panic(expected = "spoiled the new tenure")]
fn mutant_a_hint_is_taken_for_the_acknowledgement() {
    a_new_tenure_is_not_spoiled(Reuse { acknowledged: |_| true, ..CAREFUL });
}

/// A client dies inside or outside; the server lets the next one in when it has the word, or after the death.
fn the_dead_hold_nothing(void: bool) {
    model(None, move || {
        let shared = Shared::free();
        let theirs = Arc::clone(&shared);
        let dying = thread::spawn(move || {
            let mut visits = SOUND.attempt(&theirs, ME);
            if SOUND_ENTER(&theirs.word) == Entry::Entered {
                visits += theirs.lock.visit();
            }
            visits
        });
        shared.word.want();
        let mut visits = 0;
        if shared.word.take(G) {
            visits += shared.lock.visit();
            visits += dying.join().expect("it does not panic");
        } else {
            // It says nothing any more, or a hint that is lost with its socket.
            visits += dying.join().expect("it does not panic");
            assert!(!void || shared.word.void(G) != Seen::Neither, "a word of the living is free or held");
            visits += shared.lock.visit();
            assert!(!shared.word.is_held(G, ME), "the dead hold");
        }
        shared.lock.assert_visits(visits);
    });
}

const SOUND_ENTER: fn(&Word) -> Entry = |word| word.enter(G, ME, Leaving::Exchange);

#[test]
fn a_word_of_the_dead_is_taken_by_force_whether_they_were_inside_or_not() {
    the_dead_hold_nothing(true);
}

#[test]
#[should_panic(expected = "the dead hold")]
fn mutant_a_word_of_the_dead_is_left_as_it_is() {
    the_dead_hold_nothing(false);
}
