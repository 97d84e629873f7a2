//! The board of alarms: what is wrong now, for `status` and the metrics page. Off the hot path: it is written when
//! something breaks or heals, and read when somebody asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Texts of one subject that are remembered as logged, while it is wrong.
const LOGGED_MAX: usize = 16;

/// What is wrong now, by subject. Clones share one board.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alarms {
    board: Arc<Mutex<BTreeMap<&'static str, Alarm>>>,
}

#[derive(Debug, Default)]
struct Alarm {
    text: String,
    /// What was logged of it: several reasons may take turns, and each is news once.
    logged: Vec<String>,
}

impl Alarms {
    /// Something is wrong; a new text replaces the old one of the same subject. Logged when it is news.
    pub(crate) fn raise(&self, subject: &'static str, text: String) {
        let mut board = self.board();
        let alarm = board.entry(subject).or_default();
        if alarm.text != text && !alarm.logged.contains(&text) {
            tracing::error!(subject, alarm = text, "alarm");
            if alarm.logged.len() < LOGGED_MAX {
                alarm.logged.push(text.clone());
            }
        }
        alarm.text = text;
    }

    /// It is right again.
    pub(crate) fn clear(&self, subject: &'static str) {
        if self.board().remove(subject).is_some() {
            tracing::info!(subject, "alarm over");
        }
    }

    /// Every alarm, as `status` prints it.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.board().iter().map(|(subject, alarm)| format!("{subject}: {}", alarm.text)).collect()
    }

    /// A panic elsewhere leaves whole entries behind: the board stays usable.
    fn board(&self) -> MutexGuard<'_, BTreeMap<&'static str, Alarm>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_stands_until_it_is_cleared_and_every_clone_sees_it() {
        let (here, there) = (Alarms::default(), Alarms::default());
        let clone = here.clone();
        here.raise("disk", "full".to_string());
        here.raise("disk", "still full".to_string());
        assert_eq!(clone.texts(), ["disk: still full"]);
        assert!(there.texts().is_empty());
        clone.clear("disk");
        clone.clear("disk");
        assert!(here.texts().is_empty());
    }
}
