"""`climb annotate`: the labels of a sample of the corpus, `annotations/`, beside the flow of stages.

No stage reads them; `climb train-quality` trains students from them. The corpus stage is made where it is not done, and
the clusters stage for a sample that is balanced over clusters.
"""

import shutil
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from openclimb.clustering.label import clusters_of, embedding
from openclimb.corpus.custom_domains import stop_without_corpus
from openclimb.engines.engine import Engine
from openclimb.errors import StaleError
from openclimb.pipeline import clustered, surveyed
from openclimb.progress import Progress
from openclimb.quality.annotation.annotate import AnnotateSpec, annotator_of, label_documents
from openclimb.quality.annotation.answers import Answers, has_answers
from openclimb.quality.annotation.draw import Grouping, draw_documents, sources_of
from openclimb.quality.annotation.rubric import FILE as RUBRIC
from openclimb.quality.annotation.rubric import Rubric, open_rubric
from openclimb.recipes import current_recipes, stop_if_stale
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import sweep
from openclimb.workspace.records import ANNOTATIONS, Recipe, StageState, Workspace


def annotate(
    workspace: Workspace, engine: Engine, progress: Progress, spec: AnnotateSpec, *, redo: bool = False
) -> Mapping[str, Any]:
    """Label a sample of the corpus and return the facts of the record of `annotations/`. Beside the flow: no stage
    reads it; students are trained from it. The corpus stage is made where it is not done, and the clusters stage for a
    sample that is balanced over clusters.

    Labels that are there count; with `redo` they are moved aside. Raises StaleError for labels of another kind.
    """
    config = workspace.config()
    stop_without_corpus(workspace.root, config)
    with workspace.hold(note=progress.note):
        sweep(workspace.root)
        rubric, now = open_rubric(workspace.root, progress.note), current_recipes(workspace, config)
        annotator = annotator_of(spec, rubric, progress.note)  # its errors come before the work
        if redo:
            workspace.set_aside(ANNOTATIONS)
        workspace.recover(ANNOTATIONS)
        stop_if_stale(workspace, config, {stage: now[stage] for stage in ("corpus", "clusters")})
        recipe = annotation_recipe(now["corpus"], config.seed, spec, rubric)
        state = state_of_labels(workspace, recipe)
        if state.state == "done" and spec.is_done(state.facts):
            progress.note(f"{ANNOTATIONS}: done before, nothing is asked")
            return state.facts
        began, context = time.monotonic(), StageContext(workspace.root, engine, progress, config.seed)
        folder = workspace.reopen(recipe) if state.state == "done" else workspace.begin(recipe)
        with Answers(folder, list(rubric.scales)) as answers:
            units, grouping = surveyed(workspace, context, now["corpus"], config), None
            if spec.balanced and config.corpus.domains:
                grouping = Grouping(sources_of)
            elif spec.balanced:
                clusters = clustered(workspace, context, now["clusters"], config, units)
                grouping = Grouping(partial(clusters_of, config.embed, clusters), embedding(config.embed))
            at = context.at(folder)
            draw_documents(at, units, config.corpus, spec.n, rubric.characters, answers, grouping)
            engine.release()
            facts = label_documents(at, spec, rubric, annotator, answers)
        shutil.copyfile(workspace.root / RUBRIC, folder / RUBRIC)
        workspace.finish(recipe, facts, time.monotonic() - began)
        return facts


def annotation_recipe(corpus: Recipe, seed: int, spec: "AnnotateSpec", rubric: "Rubric") -> Recipe:
    """Return what decides labels: who gives them by which rubric, and how their documents are drawn from the corpus.

    How many there are is no part of it: more are added. Nor is the address where a model answers.
    """
    settings = {"rubric": rubric.fingerprint, "by": spec.who, "balanced": spec.balanced, "seed": seed}
    return Recipe(ANNOTATIONS, 1, settings, {"corpus/": corpus.fingerprint})


def state_of_labels(workspace: Workspace, recipe: Recipe) -> StageState:
    """Return how the labels of a workspace stand. Raises StaleError where they are of another kind.

    What was begun for others and has no answer yet goes.
    """
    state, begun = workspace.state(recipe), workspace.root / f"{ANNOTATIONS}.partial"
    if state.state == "stale" and not workspace.folder(ANNOTATIONS).exists() and not has_answers(begun):
        shutil.rmtree(begun)
        state = workspace.state(recipe)
    if state.state == "stale":
        listed = "\n".join(f"  {line}" for line in state.differs)
        raise StaleError(
            f"the labels in {ANNOTATIONS}/ are of another kind, and the two are not mixed:\n{listed}",
            "put it back (beside finished labels lies the rubric.toml that they were made by); or add --redo, which "
            "moves the old labels aside and begins anew",
        )
    return state
