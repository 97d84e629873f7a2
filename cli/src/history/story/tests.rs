//! Each rule on a history of a few lines: what breaks it, and what only seems to.

use super::*;

/// A history in which lines are short: `at client word request …`; the lock is `x`, D is far away.
fn story(lines: &[&str]) -> Story {
    let mut story = Story::default();
    for (line, text) in (1..).zip(lines) {
        let words: Vec<&str> = text.split(' ').collect();
        let word = |at: usize| words.get(at).copied().unwrap_or_else(|| panic!("{text}: word {at}"));
        let number = |at: usize| word(at).parse::<u64>().unwrap_or_else(|_| panic!("{text}: word {at}"));
        let what = match word(2) {
            "asks" => What::Acquire {
                request: number(3),
                namespace: words.get(5).copied().unwrap_or("default").into(),
                name: b"x".as_slice().into(),
                mode: word(4).parse().unwrap(),
                owner: 0,
                wait_ms: None,
            },
            "has" => What::Granted {
                request: number(3),
                token: Some(number(4)),
                fence: words.get(7).map(|_| number(7)),
                waited_ns: words.get(5).map_or(0, |_| number(5)),
                until_ns: words.get(6).map_or(1_000_000, |_| number(6)),
                session: "".into(),
            },
            "queued" => What::Queued { request: number(3) },
            "valid" => What::Valid { request: number(3), until_ns: number(4) },
            "refused" => What::Refused { request: number(3), code: "TIMEOUT".into() },
            "unknown" => What::Unknown { request: number(3), code: "".into() },
            "gives" => What::Release { request: number(3) },
            "lost" => What::Lost { request: number(3), lease: word(4) == "lease" },
            "wants" => What::Convert { request: number(3), mode: word(4).parse().unwrap() },
            "became" => What::Converted {
                request: number(3),
                mode: word(4).parse().unwrap(),
                token: Some(number(5)),
                fence: None,
            },
            "heartbeat" => What::Open { heartbeat: true },
            "closed" => What::Closed,
            "killed" => What::Killed,
            "forgot" => What::Server { node: "".into(), what: "".into(), memory_lost: true },
            "lenient" => What::Namespace { namespace: word(3).into(), strict: false },
            other => panic!("{other}"),
        };
        let event = Event { at_ns: number(0), client: word(1).into(), what };
        story.add(Place { file: 0, line }, &event);
    }
    story
}

/// The rules a history breaks, each with the lines that show it.
fn broken(lines: &[&str]) -> Vec<(Rule, Vec<u32>)> {
    let report = story(lines).judge();
    let lines_of =
        |violation: &Violation| violation.places.iter().map(|place| place.line).collect::<Vec<_>>();
    report.violations.iter().map(|violation| (violation.rule, lines_of(violation))).collect()
}

const NOTHING: Vec<(Rule, Vec<u32>)> = Vec::new();

#[test]
fn one_after_the_other_is_clean_and_counted() {
    let lines =
        ["0 a asks 1 EX", "1 b asks 1 EX", "5 a has 1 10", "9 a gives 1", "12 b has 1 11 10", "15 b gives 1"];
    assert_eq!(broken(&lines), NOTHING);
    let counts = story(&lines).judge().counts;
    assert_eq!((counts.lines, counts.clients, counts.requests, counts.granted), (6, 2, 2, 2));
    assert_eq!((counts.tenures, counts.certain_holds, counts.overtaken_pairs), (2, 2, 0));
}

#[test]
fn two_at_once_are_found_with_their_lines() {
    let lines =
        ["0 a asks 1 EX", "0 b asks 1 PR", "5 a has 1 10", "7 b has 1 11", "9 a gives 1", "9 b gives 1"];
    assert_eq!(broken(&lines), [(Rule::Exclusion, vec![3, 4])]);
}

#[test]
fn modes_that_go_together_may_overlap() {
    let lines =
        ["0 a asks 1 PW", "0 b asks 1 CR", "5 a has 1 10", "7 b has 1 11", "9 a gives 1", "9 b gives 1"];
    assert_eq!(broken(&lines), NOTHING);
}

#[test]
fn nothing_is_certain_beyond_the_deadline() {
    let mut lines = [
        "0 a asks 1 EX",
        "0 b asks 1 EX",
        "5 a has 1 10 0 20",
        "25 b has 1 11",
        "30 a gives 1",
        "40 b gives 1",
    ];
    assert_eq!(broken(&lines), NOTHING);
    lines[3] = "19 b has 1 11";
    assert_eq!(broken(&lines), [(Rule::Exclusion, vec![3, 4])]);
}

#[test]
fn a_renewal_moves_the_deadline() {
    let lines = [
        "0 a asks 1 EX",
        "0 b asks 1 EX",
        "5 a has 1 10 0 20",
        "15 a valid 1 40",
        "35 b has 1 11",
        "50 a gives 1",
        "50 b gives 1",
    ];
    assert_eq!(broken(&lines), [(Rule::Exclusion, vec![3, 5])]);
}

#[test]
fn who_lost_it_for_another_reason_than_time_had_it_until_the_last_look() {
    let lost = |how| {
        [
            "0 a asks 1 EX",
            "0 b asks 1 EX",
            "5 a has 1 10",
            "9 a valid 1 90",
            "20 b has 1 11",
            how,
            "50 b gives 1",
        ]
    };
    assert_eq!(broken(&lost("30 a lost 1 other")), NOTHING);
    assert_eq!(broken(&lost("30 a lost 1 lease")), [(Rule::Exclusion, vec![3, 5])]);
}

#[test]
fn a_release_that_finds_the_guard_lost_proves_nothing() {
    let lines = [
        "0 a asks 1 EX",
        "0 b asks 1 EX",
        "5 a has 1 10",
        "8 b has 1 11",
        "20 a gives 1",
        "20 a lost 1 other",
        "50 b gives 1",
    ];
    assert_eq!(broken(&lines), NOTHING);
}

#[test]
fn nobody_enters_while_the_lease_of_a_silent_holder_runs() {
    let lines = |way| {
        [
            "0 a heartbeat",
            "0 a asks 1 EX",
            "0 b asks 1 EX",
            "5 a has 1 10 0 50",
            way,
            "40 b has 1 11",
            "60 b gives 1",
        ]
    };
    assert_eq!(broken(&lines("6 a killed")), [(Rule::Lease, vec![4, 6])]);
    assert_eq!(broken(&lines("6 a closed")), NOTHING);
    assert_eq!(broken(&lines("6 a gives 1")), NOTHING);
    // A process that is watched passes its locks on at its death.
    let mut watched = lines("6 a killed");
    watched[0] = "0 a killed";
    assert_eq!(broken(&watched), NOTHING);
}

#[test]
fn a_token_belongs_to_one_client() {
    let lines =
        ["0 a asks 1 EX", "5 a has 1 10", "9 a gives 1", "10 b asks 1 EX", "12 b has 1 10", "15 b gives 1"];
    assert_eq!(broken(&lines), [(Rule::Token, vec![2, 5])]);
    let lines = ["0 a asks 1 EX", "5 a has 1 0", "9 a gives 1"];
    assert_eq!(broken(&lines), [(Rule::Token, vec![2])]);
}

#[test]
fn a_grant_that_is_entered_again_is_one_tenure() {
    let lines = [
        "0 a asks 1 PR",
        "5 a has 1 10",
        "9 a gives 1",
        "9 b asks 1 PR",
        "12 b has 1 11",
        "13 b gives 1",
        "20 a asks 2 PR",
        "21 a has 2 10",
        "22 a gives 2",
    ];
    assert_eq!(broken(&lines), NOTHING);
    assert_eq!(story(&lines).judge().counts.tenures, 2);
}

#[test]
fn tokens_go_with_time() {
    let asked_after =
        ["0 a asks 1 EX", "5 a has 1 11", "9 a gives 1", "10 b asks 1 EX", "12 b has 1 10", "15 b gives 1"];
    assert_eq!(broken(&asked_after), [(Rule::Order, vec![2, 5])]);
}

#[test]
fn tokens_go_with_time_also_among_those_who_asked_together() {
    let lines =
        ["0 a asks 1 EX", "0 b asks 1 EX", "5 a has 1 11", "9 a gives 1", "12 b has 1 10", "15 b gives 1"];
    assert_eq!(broken(&lines), [(Rule::Order, vec![3, 5])]);
}

#[test]
fn whoever_was_certainly_queued_is_not_overtaken() {
    // a was in the queue by 40 − 35; b asked at 8 and was served first.
    let lines = [
        "0 a asks 1 EX",
        "8 b asks 1 EX",
        "20 b has 1 10",
        "25 b gives 1",
        "40 a has 1 11 35",
        "45 a gives 1",
    ];
    assert_eq!(broken(&lines), [(Rule::Fifo, vec![5, 3])]);
    assert_eq!(story(&lines).judge().counts.overtaken_pairs, 1);
    // Had it been there only by 10, nobody could say.
    let mut late = lines;
    late[4] = "40 a has 1 11 30";
    assert_eq!(broken(&late), NOTHING);
    let shown = [&late[..1], &["6 a queued 1"], &late[1..]].concat();
    assert_eq!(broken(&shown), [(Rule::Fifo, vec![6, 4])]);
    let forgotten = [&shown[..2], &["7 s forgot"], &shown[2..]].concat();
    assert_eq!(broken(&forgotten), NOTHING);
}

#[test]
fn a_lenient_namespace_may_serve_as_it_likes() {
    let lines = [
        "0 a asks 1 EX jobs",
        "8 b asks 1 EX jobs",
        "20 b has 1 10",
        "25 b gives 1",
        "40 a has 1 11 35",
        "45 a gives 1",
    ];
    assert_eq!(broken(&lines).len(), 1);
    assert_eq!(broken(&[&lines[..], &["0 s lenient jobs"]].concat()), NOTHING);
}

#[test]
fn a_conversion_changes_what_is_held_and_may_pass_the_queue() {
    let lines = [
        "0 a asks 1 PR",
        "5 a has 1 10",
        "6 b asks 1 PR",
        "7 b has 1 11",
        "8 c asks 1 EX",
        "9 b gives 1",
        "10 a wants 1 EX",
        "12 a became 1 EX 12",
        "20 a wants 1 CR",
        "22 a became 1 CR 12",
        "24 d asks 1 CW",
        "30 a gives 1",
        "40 c has 1 13 31",
        "41 c gives 1",
        "50 d has 1 14 20",
        "51 d gives 1",
    ];
    assert_eq!(broken(&lines), NOTHING);
    // Somebody who reads between the conversion's grant and its end.
    let mut wrong = lines;
    wrong[5] = "14 b gives 1";
    assert_eq!(broken(&wrong), [(Rule::Exclusion, vec![4, 8])]);
}

#[test]
fn a_weaker_mode_counts_from_the_moment_it_is_asked_for() {
    let lines = [
        "0 a asks 1 EX",
        "5 a has 1 10",
        "6 b asks 1 PR",
        "10 a wants 1 PR",
        "11 b has 1 11",
        "12 b gives 1",
        "20 a became 1 PR 10",
        "30 a gives 1",
    ];
    assert_eq!(broken(&lines), NOTHING);
}

#[test]
fn between_two_modes_that_do_not_compare_only_what_they_share_is_held() {
    let lines = |b: &'static str| {
        let b = [
            "0 a asks 1 PR",
            "5 a has 1 10",
            "6 b asks 1 CW",
            "10 a wants 1 CW",
            b,
            "12 b gives 1",
            "20 a became 1 CW 12",
            "30 a gives 1",
        ];
        broken(&b)
    };
    assert_eq!(lines("11 b has 1 13"), NOTHING);
    assert_eq!(lines("9 b has 1 11"), [(Rule::Exclusion, vec![2, 5])]);
}

#[test]
fn fences_keep_older_writers_out_and_let_fellow_readers_in() {
    let lines = |write, first, second| {
        let events = [
            "0 w asks 1 EX",
            write,
            "2 w gives 1",
            "3 a asks 1 PR",
            first,
            "3 b asks 1 PR",
            second,
            "9 a gives 1",
            "9 b gives 1",
        ];
        broken(&events)
    };
    let write = "1 w has 1 10 0 99 9";
    assert_eq!(lines(write, "5 a has 1 11 0 99 10", "6 b has 1 12 0 99 10"), NOTHING);
    assert_eq!(lines(write, "5 a has 1 11 0 99 9", "6 b has 1 12 0 99 10"), [(Rule::Fence, vec![2, 5])]);
    assert_eq!(lines(write, "5 a has 1 11 0 99 10", "6 b has 1 12 0 99 11"), [(Rule::Fence, vec![5, 7])]);
    assert_eq!(
        lines("1 w has 1 10 0 99 8", "5 a has 1 11 0 99 10", "6 b has 1 12 0 99 10"),
        [(Rule::Fence, vec![2])]
    );
}

#[test]
fn every_request_has_one_outcome() {
    assert_eq!(broken(&["0 a asks 1 EX"]), [(Rule::Outcome, vec![1])]);
    assert_eq!(broken(&["0 a asks 1 EX", "9 a killed"]), NOTHING);
    assert_eq!(broken(&["9 a closed", "0 a asks 1 EX"]), NOTHING, "whoever wrote it, and where");
    assert_eq!(broken(&["0 a asks 1 EX", "2 a unknown 1"]), NOTHING);
    assert_eq!(story(&["0 a asks 1 EX", "2 a unknown 1"]).judge().counts.in_doubt, 1);
    assert_eq!(broken(&["0 a asks 1 EX", "2 a refused 1", "3 a has 1 5"]), [(Rule::Outcome, vec![1, 3])]);
    assert_eq!(broken(&["0 a asks 1 EX", "2 a refused 1", "3 a gives 1"]), [(Rule::Outcome, vec![1, 3])]);
    assert_eq!(broken(&["4 a asks 1 EX", "2 a refused 1"]), [(Rule::Outcome, vec![1, 2])]);
    assert_eq!(broken(&["0 a asks 1 EX", "2 a refused 1", "3 a asks 1 EX"]), [(Rule::Outcome, vec![1, 3])]);
    assert_eq!(broken(&["0 a has 1 5"]), [(Rule::Outcome, vec![1])]);
    let conversion = ["0 a asks 1 PR", "1 a has 1 5", "2 a wants 1 EX"];
    assert_eq!(broken(&conversion), [(Rule::Outcome, vec![1])]);
    assert_eq!(broken(&[&conversion[..], &["9 a gives 1"]].concat()), NOTHING);
}

#[test]
fn inversions_are_counted_like_by_hand() {
    // Five were queued in order 0, 10 … and granted backwards: every pair is one.
    let mut lines = Vec::new();
    for number in 0..5_u64 {
        lines.push(format!("{} c{number} asks 1 PR", number * 10));
    }
    for number in (0..5_u64).rev() {
        let at = 100 + (5 - number);
        lines.push(format!("{at} c{number} has 1 {} {}", 50 - number, at - number * 10 - 1));
        lines.push(format!("200 c{number} gives 1"));
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let report = story(&lines).judge();
    assert_eq!((report.counts.overtaken_pairs, report.broken(Rule::Fifo)), (10, 4));
}

#[test]
fn of_many_violations_the_first_are_kept_and_all_are_counted() {
    let lines: Vec<String> = (0..1200).map(|number| format!("0 a asks {number} EX")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let report = story(&lines).judge();
    assert_eq!((report.total(), report.violations.len()), (1200, 1000));
    assert!(!report.is_clean() && report.violations[0].places[0].line == 1);
}
