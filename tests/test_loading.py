"""Start-up of the commands: nothing imported that one photo does not need, the collector paused and on again."""

import gc
import subprocess
import sys

import pytest

from flipnet.commands.loading import without_collecting


@pytest.fixture
def collector():
    """Leaves the collector as it was."""
    was_on = gc.isenabled()
    yield
    (gc.enable if was_on else gc.disable)()


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_paused_and_then_as_before_even_after_an_error(collector, on):
    (gc.enable if on else gc.disable)()

    @without_collecting()
    def load(fails):
        assert not gc.isenabled()
        if fails:
            raise KeyError

    load(fails=False)
    assert gc.isenabled() is on
    with pytest.raises(KeyError):
        load(fails=True)
    assert gc.isenabled() is on


def test_restoring_a_photo_imports_no_clients_of_remote_stores():
    unwanted = "{'aiohttp', 'flipnet.data.remote'}"
    code = f"import flipnet.commands.restore, sys; print(sorted({unwanted} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
