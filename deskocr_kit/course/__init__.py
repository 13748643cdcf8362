"""Parts of the notebooks: checks that raise, puzzles, drawings, pages beside their text.

from deskocr_kit.course import attempt, check, verdicts
"""

from ..display.table import Table
from .check import check, check_below, check_close, check_equal, verdicts
from .drawings import Drawing, Timeline, columns, patches, scatter, storage, throughput, windows
from .drawings.confidence import draw_confidence
from .drawings.programs import program
from .drawings.prompt_layout import draw_prompt, draw_views, prompt_rows, sheet
from .example_llava import build_llava, llava_inputs
from .interpreted_memory import need_interpreter, watching
from .page_pictures import Beside, Boxes, Picture
from .puzzles import attempt, hint, solution
from .simulated import missing_on_simulator, prove_on_simulator
from .tiny_family import tiny_config, tiny_page

__all__ = [
    "Beside", "Boxes", "Drawing", "Picture", "Table", "Timeline", "attempt", "build_llava", "check",
    "check_below", "check_close", "check_equal", "columns", "draw_confidence", "draw_prompt", "draw_views",
    "hint", "llava_inputs", "missing_on_simulator", "need_interpreter", "patches", "program", "prompt_rows",
    "prove_on_simulator", "scatter", "sheet", "solution", "storage", "throughput", "tiny_config",
    "tiny_page", "verdicts", "watching", "windows",
]  # fmt: skip
