//! What every session's first entry says beside what its first process did: the declaration that it begins under.

use super::pipeline::Pipeline;
use crate::entry::Draft;

impl Pipeline {
    /// Adds it, however the session came to be.
    pub(super) fn complete_start(&self, draft: &mut Draft) {
        let declared_in = draft.agent.as_deref().and_then(|agent| self.config.declared_in.get(agent));
        if let Some(declared_in) = declared_in {
            let file = declared_in.file.clone();
            draft.attributes.insert("bailiwick.declaration.file".to_owned(), file.into());
            let sha256 = declared_in.sha256.clone();
            draft.attributes.insert("bailiwick.declaration.sha256".to_owned(), sha256.into());
        }
    }
}
