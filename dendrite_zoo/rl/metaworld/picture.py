"""Pictures of a simulation, also where there is no display."""

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

CAMERA = "corner2"


class Picture:
    """Draws one environment of Meta-World from a corner of its table.

    Args:
        env: whose model and data are drawn.
        height: of the picture, in pixels.
        width: of the picture.

    Raises:
        ImportError: there is no OpenGL to draw by; the message says what to install.
    """

    def __init__(self, env: Any, height: int, width: int) -> None:
        self.env, self.size = env, (height, width)
        import mujoco

        try:
            _draw_in_memory()
            self._renderer = mujoco.Renderer(env.model, height, width)
        except Exception as error:  # of whatever draws
            raise ImportError(
                f"Expected OpenGL to draw by, but got: {error or type(error)}. Without a display, install what "
                "draws in memory (apt-get install libosmesa6), and set MUJOCO_GL=osmesa, or MUJOCO_GL=egl with a GPU."
            ) from None

    def draw(self) -> NDArray[np.uint8]:
        """The environment as it stands, ``(height, width, 3)``."""
        self._renderer.update_scene(self.env.data, camera=CAMERA)
        return self._renderer.render()[::-1, ::-1].copy()  # the camera hangs upside down

    def close(self) -> None:
        """Free what draws."""
        self._renderer.close()


def _draw_in_memory() -> None:
    """Have MuJoCo draw by OSMesa on Linux where there is neither a display nor a choice of the user's.

    MuJoCo chooses when it is imported, by the environment variable; that was before anybody asked for a picture.

    Raises:
        ImportError: it is not installed.
    """
    if not sys.platform.startswith("linux") or os.environ.get("MUJOCO_GL") or os.environ.get("DISPLAY"):
        return
    from mujoco import gl_context

    try:
        from mujoco.osmesa import GLContext
    except (ImportError, AttributeError):  # PyOpenGL finds no library and fails somewhere
        raise ImportError("neither a display nor the library OSMesa") from None
    gl_context.GLContext = GLContext
