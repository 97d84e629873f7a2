//! Promises and the tests that cite them: an orphan on either side fails.

use fairlock_tests::workspace::{read, rust_files};
use std::collections::{BTreeMap, BTreeSet};

/// The numbers that docs/guarantees.md promises.
fn promised() -> BTreeSet<u32> {
    let text = read("docs/guarantees.md");
    let starts = text.lines().filter_map(|line| line.strip_prefix("**G"));
    starts.filter_map(|rest| rest.split('.').next()?.parse().ok()).collect()
}

/// The numbers a comment line cites: it begins with them (`/// G5, G8: …`).
fn cited_by(line: &str) -> Vec<u32> {
    let Some(comment) = line.trim_start().strip_prefix("//") else { return Vec::new() };
    let comment = comment.trim_start_matches(['/', '!']).trim_start();
    let Some((numbers, _)) = comment.split_once(':') else { return Vec::new() };
    let parsed = numbers.split(',').map(|number| number.trim().strip_prefix('G')?.parse().ok());
    parsed.collect::<Option<Vec<u32>>>().unwrap_or_default()
}

/// Whether the comment at `at` belongs to a test: attributes and comments only, then a `fn` that is one.
fn stands_before_a_test(lines: &[&str], at: usize) -> bool {
    let mut is_test = false;
    for line in &lines[at..] {
        let line = line.trim();
        is_test |= line.starts_with("#[test]");
        if line.starts_with("fn ") || line.starts_with("both_drivers!") || line.starts_with("every_way!") {
            return is_test || line.contains('!');
        }
        if !(line.starts_with("//") || line.starts_with("#[") || line.is_empty()) {
            return false;
        }
    }
    false
}

#[test]
fn every_promise_is_cited_by_a_test_and_every_citation_is_a_promise() {
    let promised = promised();
    assert!(promised.len() >= 30, "the promises were not found");
    let mut cited: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for file in rust_files() {
        let text = read(&file);
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            for number in cited_by(line) {
                let place = format!("{}:{}", file.display(), at + 1);
                assert!(promised.contains(&number), "{place} cites G{number}, which is not promised");
                if stands_before_a_test(&lines, at) {
                    cited.entry(number).or_default().push(place);
                } else {
                    panic!("{place} cites G{number} but no test follows");
                }
            }
        }
    }
    let orphans: Vec<u32> = promised.iter().copied().filter(|number| !cited.contains_key(number)).collect();
    assert!(orphans.is_empty(), "promises that no test cites: {orphans:?}");
}

#[test]
fn a_citation_is_recognised_and_other_remarks_are_not() {
    assert_eq!(cited_by("/// G5, G8: in order"), [5, 8]);
    assert_eq!(cited_by("    // G31: any bytes"), [31]);
    assert!(cited_by("let x = 1; // G5: no").is_empty());
    assert!(cited_by("// Given: two").is_empty() && cited_by("/// G5 in order").is_empty());
}
