//! Queues explained, from fixed entries.

use super::*;
use fairlock::{Priority, SessionId};
use fairlock_protocol::{OwnerId, Transport};

fn line(pid: u32, mode: Mode, position: u32) -> ShowLine {
    ShowLine {
        cached: false,
        mode,
        from: None,
        transport: Transport::Tcp,
        session: SessionId::from_raw(pid.into()).expect("not zero"),
        owner: OwnerId(0),
        token: None,
        age_ms: 1_500,
        position,
        pid,
        discipline: Discipline::Strict,
        priority: Priority::LOWEST,
        class: Priority::LOWEST,
        passed: 0,
        host: "db1".to_owned(),
        exe: "/usr/bin/worker".to_owned(),
        label: String::new(),
    }
}

fn queue(holders: &[Mode], waiters: &[Mode]) -> Show {
    let lines = |first: u32, modes: &[Mode], places: bool| -> Vec<ShowLine> {
        let each = (0_u32..).zip(modes);
        each.map(|(at, &mode)| line(first + at, mode, if places { at + 1 } else { 0 })).collect()
    };
    Show { holders: lines(10, holders, false), waiters: lines(20, waiters, true), ..Show::default() }
}

#[test]
fn a_waiter_is_blocked_by_the_holders_it_cannot_stand_beside() {
    let show = queue(&[Mode::CR, Mode::CW], &[Mode::PR]);
    assert_eq!(reason(&show, 0), Reason::Holders(vec![1]));
}

#[test]
fn where_classes_count_the_higher_one_is_explained_first() {
    let mut show = queue(&[Mode::PR], &[Mode::PR, Mode::EX]);
    for line in show.holders.iter_mut().chain(&mut show.waiters) {
        line.discipline = Discipline::Priority;
    }
    show.waiters[1].class = Priority::HIGHEST;
    let text = explain(b"jobs", &show, Style::PLAIN);
    let first = text.find("#1").expect("somebody is first");
    assert!(text[first..].starts_with("#1     EX"), "{text}");
    assert!(text.contains("class 7 (asked for 0)") && text.contains("#1 is served earlier"), "{text}");
    assert!(text.contains("by class") && !text.contains("nobody passes anybody"), "{text}");
}

#[test]
fn a_reader_behind_a_writer_waits_for_the_order_not_for_the_holder() {
    let show = queue(&[Mode::PR], &[Mode::EX, Mode::PR, Mode::PR]);
    assert_eq!(reason(&show, 0), Reason::Holders(vec![0]));
    assert_eq!(reason(&show, 1), Reason::Waiters(vec![0]));
    let text = explain(b"orders", &show, Style::PLAIN);
    assert!(text.contains("could stand beside the holders, but #1 came earlier"), "{text}");
}

#[test]
fn one_that_goes_with_everybody_still_keeps_its_place() {
    let show = queue(&[Mode::EX], &[Mode::NL]);
    assert_eq!(reason(&show, 0), Reason::Nothing);
    let show = queue(&[Mode::CW], &[Mode::PW, Mode::CR]);
    assert_eq!(reason(&show, 1), Reason::Order);
}

#[test]
fn conversions_go_first() {
    let mut show = queue(&[Mode::PR, Mode::PR], &[Mode::PR]);
    let mut upgrade = line(10, Mode::EX, 1);
    upgrade.from = Some(Mode::PR);
    show.conversions.push(upgrade);
    assert_eq!(conversion_reason(&show, 0), Reason::Holders(vec![1]), "its own grant does not block it");
    assert_eq!(reason(&show, 0), Reason::Conversions(vec![0]));
    let text = explain(b"orders", &show, Style::PLAIN);
    assert!(text.contains("PR→EX"), "{text}");
    assert!(text.contains("behind c1"), "{text}");
}

#[test]
fn a_free_lock_is_told_in_one_line() {
    assert_eq!(explain(b"x", &Show::default(), Style::PLAIN), "x is free: nobody holds it, nobody waits.\n");
}

#[test]
fn many_are_counted_and_few_are_named() {
    let name = |at: usize| Some(format!("#{}", at + 1));
    assert_eq!(named(&[0], name), "#1");
    assert_eq!(named(&[0, 1], name), "#1 and #2");
    assert_eq!(named(&[0, 1, 2, 3, 4], name), "#1, #2, #3 and 2 more");
}
