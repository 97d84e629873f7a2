//! What the client's threads do, one load, store or locked instruction a step: take the cached word, look, undo, ask,
//! hold, release, look back, tell. Nothing here reads what only the server knows, except to watch for broken promises.

use crate::memory::{Processor, Store};
use crate::rules::{Tries, Weakening};
use crate::shared::{Generation, Listen, Message, Reply, Thread, Wanted, Word};
use crate::state::{Actor, Errand, Holder, Phase, Run, Seen, Standing, State};
use crate::step::{Act, Step, Steps};

/// All that can happen to the client from here.
pub(crate) fn steps(state: &State, run: &Run, steps: &mut Steps) {
    if state.left.crashes > 0 {
        steps.push(Step::ClientDies, dies(state));
    }
    for thread in Thread::BOTH {
        if state.thread(thread).phase == Phase::Idle {
            begins(state, thread, run, steps);
        } else if let Some((act, next)) = Turn::of(state, thread, run).act() {
            steps.push(Step::Thread(thread, act), next);
        }
    }
}

fn dies(state: &State) -> State {
    let mut next = *state;
    next.left.crashes -= 1;
    next.client_dead = true;
    for thread in &mut next.threads {
        thread.acquisitions_left = 0;
        thread.rest();
        thread.phase = Phase::Dead;
    }
    next
}

fn begins(state: &State, thread: Thread, run: &Run, steps: &mut Steps) {
    let tries: &[bool] = if run.bounds.tries == Tries::None { &[false] } else { &[false, true] };
    for &is_try in tries {
        let never_granted = state.remembered == Generation::BEFORE_ANY;
        if state.thread(thread).acquisitions_left == 0 || is_try && never_granted {
            continue;
        }
        let mut next = *state;
        let actor = &mut next.threads[thread as usize];
        if !is_try || run.bounds.tries != Tries::Endless {
            actor.acquisitions_left -= 1;
        }
        actor.is_try = is_try;
        actor.generation = state.remembered;
        actor.phase = match never_granted {
            true => Phase::Publish(Errand::Ask),
            false if run.rules.has(Weakening::NoGlance) => after_glance(run),
            false => Phase::Glance,
        };
        steps.push(Step::Thread(thread, if is_try { Act::Tries } else { Act::Acquires }), next);
    }
}

fn after_glance(run: &Run) -> Phase {
    if run.rules.has(Weakening::GenerationFromWord) { Phase::ReadGeneration } else { Phase::Take }
}

/// One thread's next instruction, worked out on a copy of the state.
struct Turn<'a> {
    before: &'a State,
    next: State,
    thread: Thread,
    by: Processor,
    run: &'a Run,
}

impl<'a> Turn<'a> {
    fn of(before: &'a State, thread: Thread, run: &'a Run) -> Self {
        Self { before, next: *before, thread, by: run.processor(thread), run }
    }

    fn me(&mut self) -> &mut Actor {
        &mut self.next.threads[self.thread as usize]
    }

    fn was(&self) -> &Actor {
        self.before.thread(self.thread)
    }

    fn fenced(&self) -> bool {
        self.before.memory.fenced(self.by)
    }

    /// The instruction and the state after it; none while it waits for the store buffer, the ring or a reply.
    fn act(mut self) -> Option<(Act, State)> {
        let act = match self.was().phase {
            Phase::Idle | Phase::Dead => None,
            Phase::Glance => Some(self.glance()),
            Phase::ReadGeneration => Some(self.read_generation()),
            Phase::Take => self.take(),
            Phase::Look => Some(self.look()),
            Phase::LookAlive => Some(self.look_alive()),
            Phase::Undo => self.undo(),
            Phase::Publish(errand) => self.publish(errand),
            Phase::Listen(errand) => self.listen(errand),
            Phase::Bell(errand) => self.bell(errand),
            Phase::Await => self.await_reply(),
            Phase::Inside => self.leave(),
            Phase::LookBack => Some(self.look_back()),
        }?;
        Some((act, self.next))
    }

    /// The word is not to be had: a try fails, any other call asks the server.
    fn turned_away(&mut self) {
        if self.was().is_try { self.me().rest() } else { self.me().phase = Phase::Publish(Errand::Ask) }
    }

    fn glance(&mut self) -> Act {
        if self.before.memory.load_wanted(self.by) == Wanted::Nobody {
            self.me().phase = after_glance(self.run);
            Act::SeesNobodyWaiting
        } else {
            self.turned_away();
            Act::SeesWanted
        }
    }

    fn read_generation(&mut self) -> Act {
        if let Word::Free(generation) = self.before.memory.load_word(self.by) {
            self.me().generation = generation;
            self.me().phase = Phase::Take;
        } else {
            self.turned_away();
        }
        Act::ReadsGeneration
    }

    fn take(&mut self) -> Option<Act> {
        if !self.fenced() {
            return None;
        }
        let generation = self.was().generation;
        if !self.next.memory.swap_if_free(self.by, generation, Word::Held(generation, self.thread)) {
            self.turned_away();
            return Some(Act::FindsNotFree);
        }
        let server = &self.before.server;
        let ours = matches!(server.standing, Standing::Granted | Standing::Revoking)
            && server.holder == Holder::Word
            && server.generation == generation;
        let late = self.before.memory.wanted != Wanted::Nobody;
        if late && self.run.bounds.tries == Tries::Endless {
            // One beyond what two threads may do is enough to see.
            self.next.passing_takes = self.next.passing_takes.saturating_add(1).min(3);
        }
        self.me().seen.late = late;
        self.me().seen.foreign = !ours;
        if self.run.rules.has(Weakening::NoLook) {
            self.passes_look();
        } else {
            self.me().phase = Phase::Look;
        }
        Some(Act::Takes)
    }

    fn look(&mut self) -> Act {
        if self.before.memory.load_wanted(self.by) == Wanted::Nobody {
            self.passes_look();
            Act::SeesNobodyWaiting
        } else {
            self.me().phase = Phase::Undo;
            Act::SeesWanted
        }
    }

    /// `wanted` says nobody, or is not asked: this decides the entry.
    fn passes_look(&mut self) {
        let overtook =
            self.next.threads[self.thread as usize].seen.late && !self.before.server.queue.is_empty();
        if self.before.memory.wanted != Wanted::Nobody {
            self.next.bypasses = (self.next.bypasses + 1).min(2);
        }
        let may_die = self.run.bounds.deaths > 0;
        let me = self.me();
        me.seen.overtook = overtook;
        me.seen.late = false;
        me.phase = if may_die { Phase::LookAlive } else { Phase::Inside };
    }

    fn look_alive(&mut self) -> Act {
        if self.before.memory.alive {
            self.me().phase = Phase::Inside;
            Act::SeesAlive
        } else {
            self.me().phase = Phase::Undo;
            Act::SeesDead
        }
    }

    /// A store of FREE, as plain as the mode allows.
    fn free_word(&mut self, by_xchg: bool) -> Option<()> {
        let free = Word::Free(self.was().generation);
        if by_xchg {
            if !self.fenced() {
                return None;
            }
            self.next.memory.word = free;
        } else {
            if !self.before.memory.room(self.by, 1) {
                return None;
            }
            self.next.memory.store(self.by, Store::Word(free));
        }
        Some(())
    }

    /// A plain store in both modes: a message follows it in the same buffer.
    fn undo(&mut self) -> Option<Act> {
        self.free_word(false)?;
        let is_try = self.was().is_try;
        let me = self.me();
        me.seen = Seen::default();
        if !is_try {
            me.phase = Phase::Publish(Errand::Ask);
        } else if self.run.rules.has(Weakening::SilentUndo) {
            self.me().rest();
        } else {
            self.me().phase = Phase::Publish(Errand::Undo);
        }
        Some(Act::Undoes)
    }

    fn publish(&mut self, errand: Errand) -> Option<Act> {
        if !self.before.memory.room(self.by, 1) || !self.before.memory.ring_has_room() {
            return None;
        }
        let message = match errand {
            Errand::Ask => Message::Acquire(self.thread),
            Errand::Release if self.was().wordless => Message::Return(self.thread),
            Errand::Undo | Errand::Release => Message::Release(self.was().generation),
        };
        self.next.memory.store(self.by, Store::Publish(message));
        self.me().phase = Phase::Listen(errand);
        Some(Act::Publishes(message))
    }

    fn listen(&mut self, errand: Errand) -> Option<Act> {
        if !self.fenced() && !self.run.rules.has(Weakening::UnfencedPublish) {
            return None;
        }
        if self.before.memory.load_listen(self.by) == Listen::Asleep {
            self.me().phase = Phase::Bell(errand);
            return Some(Act::SeesAsleep);
        }
        self.told(errand);
        Some(Act::SeesListening)
    }

    /// A locked increment and a system call.
    fn bell(&mut self, errand: Errand) -> Option<Act> {
        if !self.fenced() {
            return None;
        }
        self.next.memory.bell = true;
        self.told(errand);
        Some(Act::Rings)
    }

    fn told(&mut self, errand: Errand) {
        if errand != Errand::Ask {
            return self.me().rest();
        }
        let me = self.me();
        me.phase = Phase::Await;
        me.generation = Generation::BEFORE_ANY;
    }

    fn await_reply(&mut self) -> Option<Act> {
        match self.before.memory.replies[self.thread as usize] {
            Some(reply) => {
                self.next.memory.replies[self.thread as usize] = None;
                match reply {
                    Reply::Word(generation) => {
                        self.next.remembered = generation;
                        self.me().generation = generation;
                    }
                    Reply::Wordless => self.me().wordless = true,
                }
                self.me().phase = Phase::Inside;
                Some(Act::ReadsReply(reply))
            }
            None if !self.before.memory.alive => {
                self.me().rest();
                Some(Act::GivesUp)
            }
            None => None,
        }
    }

    fn leave(&mut self) -> Option<Act> {
        if self.was().wordless {
            self.me().phase = Phase::Publish(Errand::Release);
            return Some(Act::Leaves);
        }
        self.free_word(self.run.rules.releases_by_xchg())?;
        self.me().phase = Phase::LookBack;
        Some(Act::Releases)
    }

    fn look_back(&mut self) -> Act {
        if self.before.memory.load_wanted(self.by) == Wanted::Nobody {
            self.me().rest();
            Act::SeesNobodyWaiting
        } else {
            self.me().phase = Phase::Publish(Errand::Release);
            Act::SeesWanted
        }
    }
}
