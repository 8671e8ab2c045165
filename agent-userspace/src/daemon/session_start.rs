//! What every session's first entry says beside what its first process did: the declaration that it begins under, and what
//! the environment says that is read, where no exec told of it.

use super::drafts::Compose;
use super::pipeline::Pipeline;
use crate::entry::Draft;

impl Pipeline {
    /// Adds it, however the session came to be.
    pub(super) fn complete_start(&self, draft: Draft) -> Draft {
        let mut compose = Compose { draft };
        let declared_in = compose.draft.agent.as_deref().and_then(|agent| self.config.declared_in.get(agent));
        if let Some(declared_in) = declared_in {
            compose.set("bailiwick.declaration.file", declared_in.file.clone());
            compose.set("bailiwick.declaration.sha256", declared_in.sha256.clone());
        }
        // An exec that opened the session has told of it.
        let told = compose.draft.attributes.contains_key("bailiwick.exec.number");
        if !told && let Some(process) = &compose.draft.process {
            let variables = self.attributor.environment_of(process.tgid);
            compose.environment(&variables, &self.config.settings.sensor.environment);
        }
        compose.draft
    }
}
