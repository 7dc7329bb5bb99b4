"""What is left of a change to a better model that is not continued, and how it is cleared away."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters.errors import AdapterError
from models import hub
from models.adoption_status import still_loaded
from models.catalogue import CatalogueEntry
from models.errors import ModelError
from models.registry import ModelRegistry
from models.switching import ModelSwitcher
from stack.errors import StackError


@dataclass(frozen=True, slots=True)
class Remains:
    """What is there of a model afterwards, and what was cleared away."""

    model: str
    unloaded: bool
    """It was loaded, and is not any more."""
    loaded: bool
    installed: bool
    deleted: bool
    """Something had been downloaded, which is deleted."""
    kept: Path | None
    """The downloaded files that could not be deleted."""
    problem: str = ""
    """Why it is still loaded."""

    def sentence(self) -> str:
        """All of it, as clauses."""
        name, said = self.model, []
        if self.unloaded:
            said.append(f"{name} is unloaded")
        if self.installed:
            delete = f"to delete its files: ./image-search models remove {name}"
            said.append(f"{name} stays installed; {delete}")
        if self.deleted:
            said.append("what was downloaded is deleted")
        if self.kept is not None:
            said.append(f"what was downloaded stays in {self.kept}, which another command uses")
        if not said:
            said.append(f"nothing of {name} was downloaded")
        text = "; ".join(said)
        if self.loaded:
            text += still_loaded(name) + (f" ({self.problem})" if self.problem else "")
        return text


async def clear_away(
    name: str,
    entry: CatalogueEntry | None,
    registry: ModelRegistry,
    downloads: Path,
    switcher: ModelSwitcher | None,
    *,
    unload: bool,
) -> Remains:
    """Unload the model, if `unload`, and delete what was downloaded of it.

    Args:
        name: the model, and `entry` its entry in the catalogue.
        registry: which models are current.
        downloads: the folder of the downloads.
        switcher: unloads it; None if the stack does not run, or its Triton is another's.
        unload: whether the change has loaded it; a model that a command loaded stays.

    Raises:
        StackError: it answers searches, also if the change was killed just after that.
        Unavailable: a server does not answer.
    """
    unloaded, problem = False, ""
    if switcher is not None:
        state = await switcher.agree_with_alias()
        if state.active == name:
            raise StackError(
                f"{name} answers searches already; to go back: ./image-search models rollback"
            )
        if unload:
            try:
                if name in state.current or name == state.retiring:
                    await switcher.retire(name)
                    unloaded = True
                else:
                    unloaded = await switcher.unload_unused(name)
            except (AdapterError, ModelError) as error:
                problem = str(error)
    kept, deleted = None, False
    if entry is not None and entry.repository is not None:
        folder = hub.folder_of(downloads, entry.repository)
        was_there = folder.exists()
        if hub.discard(downloads, entry.repository):
            deleted = was_there
        else:
            kept = folder
    return Remains(
        model=name,
        unloaded=unloaded,
        loaded=not unloaded and (bool(problem) or name in registry.read().current),
        installed=name in registry.store().names(),
        deleted=deleted,
        kept=kept,
        problem=problem,
    )
