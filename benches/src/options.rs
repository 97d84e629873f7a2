//! What a benchmark program can be told. `cargo bench` adds words of its own (`--bench`), which are passed over.

use std::path::PathBuf;

/// Options of the programs that are not criterion's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A short run that shows that everything works; its figures mean little.
    pub quick: bool,
    /// Also the sizes that take a gigabyte and minutes.
    pub large: bool,
    /// Rounds of each measurement.
    pub rounds: usize,
    /// Only sections whose name contains one of these.
    pub sections: Vec<String>,
    /// Drivers to measure: `uring`, `epoll`.
    pub io: Vec<String>,
    /// Only this size of a batch in P7.
    pub batch: Option<usize>,
    /// The program to measure.
    pub program: Option<PathBuf>,
}

/// The words a program takes, for `--help`.
pub const HELP: &str = "\
[--quick] [--large] [--rounds N] [--io uring|epoll] [--batch N] [--program PATH] [SECTION…]
  --quick         one short round of everything
  --large         also 10 million locks (a gigabyte, minutes)
  --rounds N      rounds of each measurement [default: 5]
  --io DRIVER     only this driver
  --batch N       only this size of a batch in P7
  --program PATH  the `fairlock` to measure [default: beside this program]";

impl Options {
    /// Reads the command line; a word nobody knows ends the program.
    pub fn read() -> Options {
        Options::parse(std::env::args().skip(1)).unwrap_or_else(|complaint| {
            eprintln!("{complaint}\nusage: {HELP}");
            std::process::exit(64);
        })
    }

    fn parse(words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            quick: false,
            large: false,
            rounds: 5,
            sections: Vec::new(),
            io: Vec::new(),
            batch: None,
            program: None,
        };
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--bench" | "--test" => {}
                "--quick" => (options.quick, options.rounds) = (true, 1),
                "--large" => options.large = true,
                "--rounds" => options.rounds = value()?.parse().map_err(|_| "--rounds takes a number")?,
                "--batch" => options.batch = Some(value()?.parse().map_err(|_| "--batch takes a number")?),
                "--io" => options.io.push(value()?),
                "--program" => options.program = Some(value()?.into()),
                "--help" => return Err(String::new()),
                flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
                section => options.sections.push(section.to_owned()),
            }
        }
        if options.io.is_empty() {
            options.io = vec!["epoll".to_owned(), "uring".to_owned()];
        }
        options.rounds = options.rounds.max(1);
        Ok(options)
    }

    /// Whether a section was asked for.
    pub fn wants(&self, section: &str) -> bool {
        self.sections.is_empty() || self.sections.iter().any(|wanted| section.contains(wanted.as_str()))
    }

    /// `full`, or in a quick run `quick`.
    pub fn of<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_quick_run_has_one_round_and_every_section() {
        let options = parse("--bench --quick").unwrap();
        assert_eq!((options.quick, options.rounds), (true, 1));
        assert!(options.wants("P6") && options.of(7, 3) == 3);
    }

    #[test]
    fn sections_are_chosen_by_name_and_unknown_words_are_refused() {
        let options = parse("P7 --io epoll --rounds 9").unwrap();
        assert!(options.wants("P7 pipelined") && !options.wants("P6 depth one"));
        assert_eq!((options.rounds, options.io), (9, vec!["epoll".to_owned()]));
        assert!(parse("--fast").is_err() && parse("--rounds").is_err());
    }
}
