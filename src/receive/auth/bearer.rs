//! Bearer tokens of a file, each for any tenant or for one. Only their prints are kept.

use super::prints::{Print, Printer};
use super::{Denied, Granted};
use crate::config::Tokens;
use crate::reload::{Look, Reloaded};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

type Grants = HashMap<Print, Granted>;

#[derive(Debug)]
pub(super) struct Bearer {
    printer: Printer,
    grants: Arc<Reloaded<Grants>>,
}

impl Bearer {
    pub(super) fn new(path: &Path, printer: Printer) -> Result<Self, String> {
        let (file, prints) = (path.to_owned(), printer.clone());
        let make = move || {
            let Tokens(tokens) = Tokens::read(&file).map_err(|error| format!("the file {error}"))?;
            let print = |(token, tenant): (String, Granted)| (prints.print(token.as_bytes()), tenant);
            Ok(tokens.into_iter().map(print).collect())
        };
        let grants = Reloaded::new("tokens of senders", vec![path.to_owned()], make)?;
        Ok(Self { printer, grants: Arc::new(grants) })
    }

    pub(super) fn file(&self) -> Arc<dyn Look> {
        Arc::clone(&self.grants) as Arc<dyn Look>
    }

    pub(super) fn check(&self, token: &[u8]) -> Result<Granted, Denied> {
        self.grants.current().get(&self.printer.print(token)).cloned().ok_or(Denied::Wrong)
    }
}
