//! What an operator forces: a node that is played every input, and what it wants to be done.

use alloc::vec;

use fairlock_protocol::{CellId, DigestKey, Epoch, Refusal};

use super::*;
use crate::configuration::MacKey;
use crate::member::Incarnation;
use crate::memory::Memory;
use crate::register::Register;

fn member(node: &str, life: u64) -> Member {
    Member {
        node: NodeId::new(node).unwrap(),
        machine: "4a".into(),
        incarnation: Incarnation::new(life).unwrap(),
        peer: "127.0.0.1:1".into(),
        clients: "tcp://127.0.0.1:2".into(),
    }
}

/// A cell of `a` (primary) and `b`, in epoch 10, in use.
fn configuration() -> Configuration {
    let epoch = Epoch::new(10).unwrap();
    Configuration {
        cell: CellId(5),
        epoch,
        reign: epoch,
        primary: NodeId::new("a").unwrap(),
        members: vec![member("a", 1), member("b", 2)],
        feature_level: 1,
        shards: 1,
        digest_key: DigestKey([1, 2]),
        mac_key: MacKey([3; 16]),
        ttl_horizon: Duration::from_secs(5),
        clean: false,
        state_lost: false,
    }
}

/// Node `b` in another life than the one that is listed, and its register.
struct Stage {
    node: Node,
    register: Memory,
    now: Tick,
    /// What comes of every dial.
    dialed: Dialed,
}

impl Stage {
    /// The node is this one.
    fn with(me: Member) -> Stage {
        let fresh = Fresh {
            cell: CellId(99),
            epoch: Epoch::new(500).unwrap(),
            digest_key: DigestKey([0, 0]),
            mac_key: MacKey([0; 16]),
        };
        let settings = NodeSettings {
            me,
            shards: 1,
            profile: Profile::LAN,
            feature_level: 1,
            fresh,
            ttl_max: Duration::from_mins(1),
        };
        let mut register = Memory::new();
        register.compare_and_swap(None, &configuration());
        let (node, dialed) = (Node::new(settings), Dialed::Refused);
        Stage { node, register, now: Tick::ZERO, dialed }
    }

    fn looking() -> Stage {
        let mut stage = Stage::with(member("b", 3));
        stage.step(Input::Tick);
        stage
    }

    /// One input, with the register, the replica and whoever is dialled answering at once. What else came out.
    fn step(&mut self, input: Input) -> Vec<Output> {
        let (mut inputs, mut rest) = (vec![input], vec![]);
        while let Some(input) = inputs.pop() {
            self.now = self.now.after(Duration::from_millis(1));
            self.node.step(self.now, input);
            for output in core::mem::take(self.node.outputs()) {
                match output {
                    Output::Ask(Ask::Read) => inputs.push(Input::Register(self.register.read())),
                    Output::Ask(Ask::Cas { expected, new }) => {
                        let answer = self.register.compare_and_swap(expected, &new);
                        inputs.push(Input::Register(answer));
                    }
                    Output::Order(Order::Promise(epoch)) => {
                        inputs.push(Input::Shard(0, Report::Promised(epoch)));
                    }
                    Output::Order(Order::Office { setup, .. }) => {
                        inputs.push(Input::Shard(0, Report::InOffice(setup.epoch)));
                    }
                    Output::Order(Order::StepDown | Order::Retire) => {
                        rest.push(output);
                        inputs.push(Input::Shard(0, Report::SteppedDown));
                    }
                    Output::Dial { member, probe } => {
                        inputs.push(Input::Dialed { node: member.node, probe, outcome: self.dialed.clone() });
                    }
                    other => rest.push(other),
                }
            }
        }
        rest
    }

    fn force(&mut self, named: &[&str]) -> Result<(), String> {
        let named = named.iter().map(|node| NodeId::new(node).unwrap()).collect();
        let outputs = self.step(Input::Wish(7, Wish::ForceNew(named)));
        let answer = outputs.into_iter().find_map(|output| match output {
            Output::Answer(7, answer) => Some(answer),
            _ => None,
        });
        answer.expect("it is answered").map_err(|(_, why)| why)
    }

    /// What another node writes, and this one is told.
    fn written(&mut self, next: &Configuration) -> Vec<Output> {
        let expected = self.register.stored().map(|stored| stored.revision);
        self.register.compare_and_swap(expected, next);
        let stored = self.register.stored().cloned();
        self.step(Input::Watched(Watched::Value(stored)))
    }

    /// In office after a forced beginning, with everything.
    fn in_office() -> Stage {
        let mut stage = Stage::looking();
        stage.force(&["a"]).unwrap();
        stage.step(Input::Shard(0, Report::Restored));
        assert_eq!(stage.node.standing(), Standing::Primary);
        stage
    }

    /// What stands, in the next epoch, with `a` as well and this primary.
    fn next(&self, primary: &str) -> Configuration {
        let stands = self.stands();
        let epoch = stands.epoch.next().unwrap();
        let members = vec![member("a", 4), member("b", 3)];
        let primary = NodeId::new(primary).unwrap();
        Configuration { epoch, reign: epoch, primary, members, state_lost: false, ..stands }
    }

    fn stands(&self) -> Configuration {
        self.register.stored().expect("something stands there").configuration.clone()
    }
}

#[test]
fn whoever_may_be_alive_has_to_be_named() {
    let mut stage = Stage::looking();
    assert_eq!(stage.node.standing(), Standing::Seeking);
    let names = |nodes: &[NodeId]| nodes.iter().map(|node| node.as_str().to_string()).collect::<Vec<_>>();
    assert_eq!(names(&stage.node.waits_for()), ["a"], "its own earlier life is over");
    let why = stage.force(&[]).unwrap_err();
    assert!(why.contains(": a;"), "{why}");
    assert_eq!(stage.stands(), configuration(), "nothing was changed");
    stage.force(&["a"]).unwrap();
    assert_eq!(stage.node.standing(), Standing::Primary);
    let new = stage.stands();
    assert!(new.state_lost && new.epoch.get() == 11 && new.ttl_horizon == Duration::from_secs(5));
    assert_eq!((new.primary.as_str(), new.members), ("b", vec![member("b", 3)]));
}

#[test]
fn a_primary_forces_nothing() {
    let mut stage = Stage::looking();
    stage.force(&["a"]).unwrap();
    let why = stage.force(&["a"]).unwrap_err();
    assert!(why.contains("is primary"), "{why}");
}

/// The key was deleted: only a forced beginning goes on, in a higher epoch and with the quarantine of what was known.
#[test]
fn a_configuration_that_is_gone_is_begun_anew_behind_the_epoch_that_was_known() {
    let mut stage = Stage::looking();
    stage.register.remove();
    stage.now = stage.now.after(LOOK_AGAIN);
    stage.step(Input::Tick);
    assert_eq!(stage.node.standing(), Standing::Halted);
    let outputs = stage.step(Input::Wish(7, Wish::ForceNew(vec![NodeId::new("a").unwrap()])));
    assert!(outputs.contains(&Output::Answer(7, Ok(()))), "{outputs:?}");
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, Output::Quarantine(wait) if *wait >= Duration::from_secs(5)))
    );
    assert_eq!(stage.node.standing(), Standing::Primary);
    let new = stage.stands();
    assert_eq!((new.cell, new.epoch.get(), new.state_lost), (CellId(5), 11, true));
}

/// An old backup of the register was restored: its epoch is below what this node knows.
#[test]
fn a_register_that_went_back_is_overtaken() {
    let mut stage = Stage::looking();
    stage.register.remove();
    let old =
        Configuration { epoch: Epoch::new(4).unwrap(), reign: Epoch::new(4).unwrap(), ..configuration() };
    stage.register.compare_and_swap(None, &old);
    stage.now = stage.now.after(LOOK_AGAIN);
    stage.step(Input::Tick);
    assert_eq!(stage.node.standing(), Standing::Halted);
    stage.force(&["a"]).unwrap();
    assert_eq!((stage.node.standing(), stage.stands().epoch.get()), (Standing::Primary, 11));
}

/// A register that does not answer: nothing is given up for it.
#[test]
fn without_the_register_nothing_is_forced_and_nothing_is_lost() {
    let mut stage = Stage::looking();
    stage.node.step(stage.now, Input::Wish(7, Wish::ForceNew(vec![NodeId::new("a").unwrap()])));
    stage.node.outputs().clear();
    stage.node.step(stage.now, Input::Register(Answer::Failed("timed out".into())));
    let outputs = core::mem::take(stage.node.outputs());
    let refused = outputs.iter().find_map(|output| match output {
        Output::Answer(7, Err(refused)) => Some(refused),
        _ => None,
    });
    let (refusal, why) = refused.expect("it is answered");
    assert!(*refusal == Refusal::Unavailable && why.contains("does not answer"), "{outputs:?}");
    assert!(!outputs.contains(&Output::Order(Order::StepDown)), "{outputs:?}");
}

/// A cell that has lost its state, as this node's backup sees it: it keeps the quarantine, and hands it on when it has to
/// take over before it has passed (S11, R13).
#[test]
fn a_backup_that_takes_over_in_a_quarantine_keeps_it() {
    let quarantined = |outputs: &[Output]| {
        let long =
            |output: &Output| matches!(output, Output::Quarantine(wait) if *wait >= Duration::from_secs(5));
        outputs.iter().any(long)
    };
    let mut stage = Stage::looking();
    let epoch = Epoch::new(11).unwrap();
    let members = vec![member("a", 4), member("b", 3)];
    let lost = Configuration { epoch, reign: epoch, members, state_lost: true, ..configuration() };
    let expected = stage.register.stored().map(|stored| stored.revision);
    stage.register.compare_and_swap(expected, &lost);
    stage.now = stage.now.after(LOOK_AGAIN);
    assert!(quarantined(&stage.step(Input::Tick)), "it keeps what the primary keeps");
    // It has everything, and nobody listens where the primary was.
    stage.step(Input::Shard(0, Report::Restored));
    stage.now = stage.now.after(LOOK_AGAIN);
    let outputs = stage.step(Input::Tick);
    assert_eq!(stage.node.standing(), Standing::Primary);
    assert!(quarantined(&outputs) && stage.stands().state_lost, "{outputs:?}");
}

/// It is listed, so it has everything that was ever exposed: it keeps that, and takes over again when nobody listens where the
/// other one was (S4).
#[test]
fn a_primary_that_is_listed_still_leaves_office_with_what_it_has() {
    let mut stage = Stage::in_office();
    let outputs = stage.written(&stage.next("a"));
    assert!(outputs.contains(&Output::Order(Order::Retire)), "{outputs:?}");
    assert!(!outputs.contains(&Output::Order(Order::StepDown)), "{outputs:?}");
    stage.now = stage.now.after(LOOK_AGAIN);
    stage.step(Input::Tick);
    let stands = stage.stands();
    assert_eq!((stage.node.standing(), stands.state_lost), (Standing::Primary, false));
    assert_eq!(
        (stands.epoch.get(), stands.primary.as_str(), stands.members),
        (13, "b", vec![member("b", 3)])
    );
}

/// Another was primary meanwhile and handed back, and this node heard of neither: it begins a new office.
#[test]
fn a_primary_that_is_made_primary_again_takes_office_anew() {
    let mut stage = Stage::in_office();
    let given = stage.next("b");
    let given =
        Configuration { epoch: given.epoch.next().unwrap(), reign: given.epoch.next().unwrap(), ..given };
    let outputs = stage.written(&given);
    assert!(outputs.contains(&Output::Order(Order::Retire)), "{outputs:?}");
    assert_eq!((stage.node.standing(), stage.stands()), (Standing::Primary, given));
}

/// Whoever deletes it by mistake must not find a cell that goes on beside the one that the next start begins.
#[test]
fn a_record_that_goes_missing_is_looked_for_at_once() {
    let mut stage = Stage::in_office();
    stage.register.remove();
    let outputs = stage.step(Input::Watched(Watched::Value(None)));
    assert_eq!(stage.node.standing(), Standing::Halted);
    let told =
        |output: &Output| matches!(output, Output::Alarm("register", Some(why)) if why.contains("gone"));
    assert!(outputs.iter().any(told), "{outputs:?}");
    // A read that fails is made again, and the answer to it counts.
    let mut stage = Stage::in_office();
    stage.register.remove();
    stage.node.step(stage.now, Input::Watched(Watched::Value(None)));
    stage.node.outputs().clear();
    stage.node.step(stage.now, Input::Register(Answer::Failed("no leader".into())));
    assert_eq!(stage.node.standing(), Standing::Primary);
    stage.now = stage.now.after(TRY_AGAIN);
    stage.node.outputs().clear();
    stage.step(Input::Tick);
    assert_eq!(stage.node.standing(), Standing::Halted);
    // A watch alone is not believed.
    let mut stage = Stage::in_office();
    stage.step(Input::Watched(Watched::Value(None)));
    assert_eq!(stage.node.standing(), Standing::Primary);
}

/// Two processes with one name and two state directories: the second one goes, and the first one is not disturbed.
#[test]
fn a_name_that_runs_already_is_not_taken() {
    let elsewhere = |life| Member { peer: "127.0.0.1:9".into(), ..member("b", life) };
    let mut stage = Stage::with(elsewhere(3));
    stage.dialed = Dialed::Alive;
    let outputs = stage.step(Input::Tick);
    assert_eq!((stage.node.standing(), stage.stands()), (Standing::Halted, configuration()));
    let told = |output: &Output| matches!(output, Output::Alarm("name", Some(why)) if why.contains("--node"));
    assert!(outputs.iter().any(told), "{outputs:?}");
    // An earlier life that was reached elsewhere, and does not answer there, is over: its place is asked for.
    let mut stage = Stage::with(elsewhere(3));
    stage.step(Input::Tick);
    let waits: Vec<String> = stage.node.waits_for().iter().map(ToString::to_string).collect();
    assert_eq!((stage.node.standing(), waits), (Standing::Seeking, vec!["a".to_string()]));
    stage.force(&["a"]).unwrap();
}

/// An etcd that was restored counts its revisions from where the backup was made.
#[test]
fn a_register_that_went_back_is_noticed_by_who_serves() {
    let mut stage = Stage::in_office();
    let known = stage.node.known().unwrap().clone();
    let old = Stored { configuration: configuration(), revision: Revision(known.revision.0 - 1) };
    stage.node.step(stage.now, Input::Watched(Watched::Value(Some(old.clone()))));
    assert!(stage.node.outputs().contains(&Output::Ask(Ask::Read)), "what the watch says may be late");
    stage.node.step(stage.now, Input::Register(Answer::Value(Some(old.clone()))));
    assert_eq!(stage.node.standing(), Standing::Halted);
    // It was late.
    let mut stage = Stage::in_office();
    stage.step(Input::Watched(Watched::Value(Some(old))));
    assert_eq!(stage.node.standing(), Standing::Primary);
    // Another cell, whatever its epoch.
    let other = Configuration { cell: CellId(6), ..stage.next("b") };
    stage.written(&other);
    assert_eq!(stage.node.standing(), Standing::Halted);
}

/// Silence of an earlier life shows nothing: its place is not taken. A primary takes out by itself whoever is gone.
#[test]
fn a_name_that_is_silent_elsewhere_is_not_taken() {
    let me = Member { peer: "127.0.0.1:9".into(), ..member("b", 3) };
    let mut stage = Stage::with(me.clone());
    stage.dialed = Dialed::Silent("no answer".into());
    stage.step(Input::Tick);
    let waits: Vec<String> = stage.node.waits_for().iter().map(ToString::to_string).collect();
    assert_eq!((stage.node.standing(), waits), (Standing::Seeking, vec!["a".to_string(), "b".to_string()]));
    assert!(!stage.node.may_dial());
    assert!(stage.force(&["a"]).unwrap_err().contains("may be alive: b"));
    // Nor while somebody is there who does not show who he is.
    let mut stage = Stage::with(me);
    stage.dialed = Dialed::Unproven("the secrets differ".into());
    stage.step(Input::Tick);
    assert!(!stage.node.may_dial() && stage.force(&["a"]).is_err());
    stage.force(&["a", "b"]).unwrap();
}

/// Its own memory is older than what it replaces: it goes by who is listed now, and behind both epochs.
#[test]
fn a_node_that_halted_forces_nobody_away_whom_it_did_not_know() {
    let mut stage = Stage::in_office();
    let other = Configuration { cell: CellId(6), epoch: Epoch::new(400).unwrap(), ..stage.next("b") };
    let other = Configuration { primary: NodeId::new("c").unwrap(), members: vec![member("c", 9)], ..other };
    stage.written(&other);
    assert_eq!(stage.node.standing(), Standing::Halted);
    assert!(stage.force(&["a"]).unwrap_err().contains("not what this node knew"), "it looks first");
    assert_eq!(stage.stands(), other);
    assert!(stage.force(&["a"]).unwrap_err().contains("may be alive: c"));
    stage.force(&["c"]).unwrap();
    let stands = stage.stands();
    assert_eq!((stands.epoch.get(), stands.state_lost), (401, true));
}

/// Whoever was listed and is listed in another life is not the only one of its name.
#[test]
fn who_was_replaced_by_his_namesake_goes() {
    let mut stage = Stage::in_office();
    let next = stage.next("a");
    let next = Configuration { members: vec![member("a", 4), member("b", 7)], ..next };
    stage.written(&next);
    assert_eq!(stage.node.standing(), Standing::Halted);
}

/// The horizon rises within an epoch: a record of before is an old one all the same.
#[test]
fn an_old_record_of_the_same_epoch_stops_the_node() {
    let mut stage = Stage::in_office();
    let old = stage.node.known().unwrap().clone();
    let raised = Configuration { ttl_horizon: Duration::from_mins(1), ..old.configuration.clone() };
    stage.written(&raised);
    assert_eq!(stage.node.standing(), Standing::Primary);
    stage.node.step(stage.now, Input::Watched(Watched::Value(Some(old.clone()))));
    stage.node.step(stage.now, Input::Register(Answer::Value(Some(old))));
    assert_eq!(stage.node.standing(), Standing::Halted);
}

/// It was in office, its table is ahead, and it is listed: it keeps what it has until it was taken out, and takes over with it
/// when the new one is gone before that (S4).
#[test]
fn a_node_astray_that_is_listed_keeps_what_it_has() {
    let mut stage = Stage::in_office();
    stage.dialed = Dialed::Up;
    stage.written(&stage.next("a"));
    stage.now = stage.now.after(LOOK_AGAIN);
    stage.step(Input::Tick);
    let primary = peer(&member("a", 4));
    let outputs = stage.step(Input::Shard(0, Report::Astray(primary)));
    assert!(!outputs.contains(&Output::Order(Order::StepDown)), "{outputs:?}");
    stage.dialed = Dialed::Refused;
    stage.now = stage.now.after(LOOK_AGAIN);
    stage.step(Input::Tick);
    assert_eq!((stage.node.standing(), stage.stands().state_lost), (Standing::Primary, false));
}

/// A restored etcd, in which others went on: the same epoch in another history, whatever its revision.
#[test]
fn another_history_of_the_same_epoch_is_no_news() {
    let mut stage = Stage::in_office();
    let known = stage.node.known().unwrap().clone();
    let fork = Configuration {
        primary: NodeId::new("c").unwrap(),
        members: vec![member("c", 9)],
        ttl_horizon: Duration::from_mins(1),
        ..known.configuration.clone()
    };
    stage.written(&fork);
    assert_eq!(stage.node.standing(), Standing::Halted);
    assert!(stage.force(&["a"]).unwrap_err().contains("not what this node knew"));
    assert!(stage.force(&["a"]).unwrap_err().contains("may be alive: c"));
    let outputs = stage.step(Input::Wish(8, Wish::ForceNew(vec![NodeId::new("c").unwrap()])));
    assert_eq!((stage.node.standing(), stage.stands().epoch.get()), (Standing::Primary, 12));
    let ends = |output: &Output| matches!(output, Output::Alarm("register", None));
    assert!(outputs.iter().any(ends), "{outputs:?}");
    let waits =
        |output: &Output| matches!(output, Output::Quarantine(wait) if *wait >= Duration::from_mins(1));
    assert!(outputs.iter().any(waits), "of the longest lease of either: {outputs:?}");
    // Of the same revision, too.
    let mut stage = Stage::in_office();
    let known = stage.node.known().unwrap().clone();
    let fork = Stored { configuration: fork, revision: known.revision };
    stage.node.step(stage.now, Input::Watched(Watched::Value(Some(fork))));
    assert!(stage.node.outputs().contains(&Output::Ask(Ask::Read)));
}

/// A restored etcd, in which others went on from an older epoch: they count as much as those of the later one.
#[test]
fn whoever_is_listed_in_either_history_has_to_be_named() {
    let restored = |epoch, members: Vec<Member>| {
        let mut stage = Stage::looking();
        stage.register.remove();
        let epoch = Epoch::new(epoch).unwrap();
        let primary = members[0].node.clone();
        let ttl_horizon = Duration::from_mins(1);
        let other = Configuration { epoch, reign: epoch, primary, members, ttl_horizon, ..configuration() };
        stage.register.compare_and_swap(None, &other);
        stage
    };
    let mut stage = restored(5, vec![member("c", 9)]);
    let why = stage.force(&["a"]).unwrap_err();
    assert!(why.contains("not what this node knew"), "{why}");
    assert_eq!(stage.node.standing(), Standing::Halted, "its own look showed it");
    assert!(stage.force(&["a"]).unwrap_err().contains("may be alive: c"));
    assert!(stage.force(&["c"]).unwrap_err().contains("may be alive: a"), "who was listed before still is");
    let names: Vec<&str> = stage.node.listed().map(|member| member.node.as_str()).collect();
    assert_eq!(names, ["c", "a", "b"], "each of them is called");
    let outputs = stage.step(Input::Wish(8, Wish::ForceNew(stage.node.waits_for())));
    assert_eq!((stage.node.standing(), stage.stands().epoch.get()), (Standing::Primary, 11));
    let waits =
        |output: &Output| matches!(output, Output::Quarantine(wait) if *wait >= Duration::from_mins(1));
    assert!(outputs.iter().any(waits), "of the longest lease of either: {outputs:?}");
    assert_eq!(stage.node.listed().count(), 1);
    // Another life of the same name has yet to be called.
    let mut stage = restored(5, vec![member("a", 9)]);
    assert!(stage.force(&["a"]).unwrap_err().contains("not what this node knew"));
    stage.force(&["a"]).unwrap();
    // News that it can go on from is gone by first.
    let mut stage = restored(12, vec![member("a", 1)]);
    assert!(stage.force(&["a"]).unwrap_err().contains("not what this node knew"));
    assert_eq!(stage.node.standing(), Standing::Seeking);
    stage.force(&["a"]).unwrap();
    assert_eq!(stage.stands().epoch.get(), 13);
}

/// What the register says later is not why it halted.
#[test]
fn a_node_that_halted_says_why_until_it_is_forced_on() {
    let mut stage = Stage::looking();
    stage.register.remove();
    stage.now = stage.now.after(LOOK_AGAIN);
    let outputs = stage.step(Input::Tick);
    let halts =
        |output: &Output| matches!(output, Output::Alarm("register", Some(why)) if why.contains("gone"));
    assert!(outputs.iter().any(halts), "{outputs:?}");
    let blind = Input::Watched(Watched::Blind("the watch ended".to_string()));
    assert_eq!(stage.step(blind), []);
}
