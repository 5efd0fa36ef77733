"""The package speaks plain technical English: functions say what they do, names are verbs."""

import ast
import re
from functools import cache
from pathlib import Path

import xcam

ROOT = Path(xcam.__file__).parent

# The first word of each function's docstring. Add a verb in its imperative form, nothing else.
VERBS = set(
    """
    Abort Accept Accumulate Add Adopt Advance Allocate Append Apply Ask Assemble Assert Assign
    Attach Average Begin Bind Blend Block Blur Bring Broadcast Build Cache Call Cap Capture Cast
    Change Check Choose Claim Classify Clean Clear Clip Close Collect Color Combine Compare Compute
    Concatenate Connect Convert Copy Correct Count Create Crop Cut Decide Decode Decorate Delete
    Derive Describe Destroy Detach Detect Determine Differentiate Digest Discard Discover
    Dispatch Divide Download Draw Drop Dump Embed Enable End Encode Enforce Ensure Enter Erase
    Estimate Evaluate Exchange Exclude Execute Exit Expand Explain Export Extract Fail Fetch
    Fill Filter Find Finish Fit Fix Flatten Flip Fold Follow Forget Format Forward Freeze Gather
    Generate Get Give Group Guard Handle Hash Hide Hold Hook Ignore Implement Import Impute
    Include Increase Index Infer Initialize Insert Inspect Install Interpolate Interrupt Invert
    Invoke Iterate Join Keep Label Launch Lay Leave Limit List Load Locate Lock Log Look Lower
    Make Map Mark Mask Match Measure Merge Minimize Mix Modify Move Multiply Mute Name Normalize
    Note Notice Number Obtain Open Optimize Order Overlay Overwrite Pad Parse Pass Pick Place
    Plot Pool Predict Prepare Print Probe Process Produce Project Propagate Provide Put Quantize
    Raise Randomize Rank Read Rebuild Recompute Record Reduce Refuse Register Reject Release
    Remember Remove Rename Render Repeat Replace Report Represent Request Require Rerun Rescale
    Reset Resize Resolve Restore Restrict Resume Retrieve Return Reverse Rewrite Roll Round Run
    Sample Save Scale Scan Score Search See Seed Segment Select Send Separate Serialize Set
    Share Shift Show Shuffle Sign Skip Slice Smooth Solve Sort Split Stack Standardize Start
    Step Stop Store Stretch Strip Subtract Sum Summarize Suppress Swap Switch Sync Synchronize
    Take Tell Test Threshold Time Total Touch Trace Track Train Transform Translate Trim Try
    Turn Undo Unfold Unwrap Update Upsample Use Validate Verify Visit Wait Walk Warn Watch
    Weight Widen Work Wrap Write Yield Zero
    """.split()  # noqa: SIM905
)
# Names that say whose or where, but not what is done, or what it is: maps_of, of_model, in_space.
PRIVATE_SPEECH = re.compile(r"_?(of|as|in)_.+|.+_of")


@cache
def find_functions():
    """Each function with the place where it stands."""
    return [
        (f"{path.relative_to(ROOT.parent)}:{node.lineno} {node.name}", node)
        for path in sorted(ROOT.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_function_docstrings_begin_with_an_imperative_verb():
    wrong = []
    for place, node in find_functions():
        text = ast.get_docstring(node)
        if text is not None and text.split()[0].rstrip(".,:;") not in VERBS:
            wrong.append(f"{place}: {text.splitlines()[0]}")
    assert wrong == []


def test_function_names_are_no_private_speech():
    assert [place for place, node in find_functions() if PRIVATE_SPEECH.fullmatch(node.name)] == []
