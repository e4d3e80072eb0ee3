//! The variables as flags of the command line. Parses no value: a flag is text until the reader sees it.

use super::variables::{VARIABLES, Variable};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::LazyLock;

/// What was given as flags, by the name of the variable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    given: BTreeMap<&'static str, OsString>,
}

impl Settings {
    /// What that variable was given as a flag.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.given.get(name).map(OsString::as_os_str)
    }

    /// These, and of others those that are not among them.
    #[must_use]
    pub fn or(mut self, others: Self) -> Self {
        for (name, value) in others.given {
            self.given.entry(name).or_insert(value);
        }
        self
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut settings = Self::default();
        settings.update_from_arg_matches(matches)?;
        Ok(settings)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for variable in VARIABLES {
            if let Some(value) = matches.get_one::<OsString>(variable.name) {
                self.given.insert(variable.name, value.clone());
            }
        }
        Ok(())
    }
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        let flags = VARIABLES.iter().zip(FLAGS.iter());
        flags.fold(command, |command, (variable, name)| command.arg(flag(variable, name)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The names, made once: clap wants them for as long as the process lives.
static FLAGS: LazyLock<Vec<String>> = LazyLock::new(|| VARIABLES.iter().map(Variable::flag).collect());

fn flag(variable: &Variable, name: &'static str) -> Arg {
    let default = match variable.default {
        "" => String::new(),
        default => format!(" [default: {default}]"),
    };
    Arg::new(variable.name)
        .long(name)
        .value_name("VALUE")
        .value_parser(clap::value_parser!(OsString))
        .action(ArgAction::Set)
        .help(format!("{}{default} [env: {}]", variable.meaning, variable.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Settings {
        let matches =
            Settings::augment_args(Command::new("x")).try_get_matches_from(arguments).expect("parses");
        Settings::from_arg_matches(&matches).expect("reads")
    }

    #[test]
    fn a_flag_is_named_like_its_variable() {
        let settings = parsed(&["x", "--upstream-url", "http://a/", "--log-format=json"]);
        assert_eq!(settings.get("PROMDEDUP_UPSTREAM_URL"), Some(OsStr::new("http://a/")));
        assert_eq!(settings.get("PROMDEDUP_LOG_FORMAT"), Some(OsStr::new("json")));
        assert_eq!(settings.get("PROMDEDUP_LOG"), None);
    }
}
