//! One line that says how far the work is: rewritten in place on a terminal, written anew now and then elsewhere.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two lines where they stay: in a file, in a pipe.
const PLAIN_EVERY: Duration = Duration::from_secs(2);
/// The speed shown is that of the last so many seconds.
const SPEED_OVER: Duration = Duration::from_secs(4);

/// Where progress is shown.
pub(super) struct Line {
    out: Box<dyn Write + Send>,
    /// Lines can be rewritten.
    terminal: bool,
    /// Something stands on the terminal's current line.
    shown: bool,
    written: Option<Instant>,
    every: Duration,
}

impl Line {
    /// On standard error, which leaves standard output to the answers.
    pub(super) fn on_stderr() -> Line {
        let stderr = io::stderr();
        let terminal = stderr.is_terminal();
        Line::new(Box::new(stderr), terminal)
    }

    pub(super) fn new(out: Box<dyn Write + Send>, terminal: bool) -> Line {
        Line { out, terminal, shown: false, written: None, every: PLAIN_EVERY }
    }

    /// Lets this much time pass between two lines where they stay.
    pub(super) fn every(&mut self, every: Duration) {
        self.every = every;
    }

    /// Shows `text`, if it is time for it. Progress that cannot be shown is no fault.
    pub(super) fn show(&mut self, text: impl FnOnce() -> String) {
        if self.terminal {
            let _ = write!(self.out, "\r\x1b[2K{}", text()).and_then(|()| self.out.flush());
            self.shown = true;
            return;
        }
        let now = Instant::now();
        let due = self.written.is_none_or(|at| now.duration_since(at) >= self.every);
        if due {
            self.written = Some(now);
            let _ = writeln!(self.out, "{}", text()).and_then(|()| self.out.flush());
        }
    }

    /// Takes the line away, for what is printed next.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(self.out, "\r\x1b[2K").and_then(|()| self.out.flush());
        }
    }
}

impl Drop for Line {
    /// An error message must not begin in the middle of the line.
    fn drop(&mut self) {
        self.clear();
    }
}

/// Events per second over the last seconds.
#[derive(Debug, Default)]
pub(super) struct Speed(VecDeque<(Instant, u64)>);

impl Speed {
    /// Takes how many events there are by now, and says how fast they came.
    pub(super) fn at(&mut self, now: Instant, events: u64) -> u64 {
        self.0.push_back((now, events));
        while self.0.len() > 2 && self.0.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= SPEED_OVER) {
            self.0.pop_front();
        }
        self.0.front().map_or(0, |&(at, before)| per_second(events.saturating_sub(before), now.duration_since(at)))
    }
}

/// Events per second.
pub(super) fn per_second(events: u64, within: Duration) -> u64 {
    if within.is_zero() { 0 } else { (events as f64 / within.as_secs_f64()) as u64 }
}

/// A number with its thousands set apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of something that has a regular plural.
pub(super) fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// How long ago a moment was, in the unit that a person would use.
pub(super) fn ago(then_ms: i64, now_ms: i64) -> String {
    let seconds = now_ms.saturating_sub(then_ms).max(0) / 1_000;
    let (count, unit) = match seconds {
        0..=1 => return "a moment ago".into(),
        2..=119 => (seconds, "seconds"),
        120..=7_199 => (seconds / 60, "minutes"),
        7_200..=172_799 => (seconds / 3_600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit} ago")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was written, for a look from outside.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(terminal: bool) -> String {
        let written = Written::default();
        let mut line = Line::new(Box::new(written.clone()), terminal);
        line.show(|| "one".into());
        line.show(|| "two".into());
        drop(line);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_terminal_shows_the_newest_line_and_a_file_one_now_and_then() {
        assert_eq!(shown(true), "\r\x1b[2Kone\r\x1b[2Ktwo\r\x1b[2K");
        assert_eq!(shown(false), "one\n");
    }

    #[test]
    fn numbers_and_times_are_written_for_people() {
        let numbers: Vec<String> = [0, 999, 1_000, 123_456, 1_234_567].map(grouped).to_vec();
        assert_eq!(numbers, ["0", "999", "1,000", "123,456", "1,234,567"]);
        assert_eq!([counted(1, "commit"), counted(1_000, "commit")], ["1 commit", "1,000 commits"]);
        let times: Vec<String> = [0, 1, 2, 119, 120, 7_200, 172_800].map(|s| ago(0, s * 1_000)).to_vec();
        assert_eq!(
            times,
            [
                "a moment ago",
                "a moment ago",
                "2 seconds ago",
                "119 seconds ago",
                "2 minutes ago",
                "2 hours ago",
                "2 days ago"
            ]
        );
        assert_eq!(ago(10_000, 0), "a moment ago");
    }

    #[test]
    fn the_speed_is_that_of_the_last_seconds() {
        let (mut speed, began) = (Speed::default(), Instant::now());
        let at = |s: u64| began + Duration::from_secs(s);
        assert_eq!(speed.at(at(0), 0), 0);
        assert_eq!(speed.at(at(1), 1_000), 1_000);
        (2..=20).for_each(|s| {
            speed.at(at(s), 1_000);
        });
        assert_eq!(speed.at(at(21), 1_400), 100);
    }
}
