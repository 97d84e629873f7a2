//! Colour, where a person looks and did not ask for none (`NO_COLOR`, a dumb terminal).

use std::io::IsTerminal;

/// How a piece of text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it is.
    Plain,
    /// A heading, or what is there for completeness.
    Dim,
    /// What the reader looks for.
    Strong,
    /// All is well.
    Good,
    /// Somebody should look.
    Warn,
    /// Something is wrong.
    Bad,
}

/// Whether text gets colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    coloured: bool,
}

impl Style {
    /// No colour.
    #[cfg(test)]
    pub(crate) const PLAIN: Style = Style { coloured: false };

    /// What suits stdout.
    pub(crate) fn of_stdout() -> Style {
        let set = |name| std::env::var_os(name).filter(|value: &std::ffi::OsString| !value.is_empty());
        let dumb = set("TERM").is_none_or(|term| term == "dumb");
        Style { coloured: std::io::stdout().is_terminal() && set("NO_COLOR").is_none() && !dumb }
    }

    /// The text in that tone.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => "",
            Tone::Dim => "2",
            Tone::Strong => "1",
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
        };
        if self.coloured && !code.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
