"""From a group's answers to predictions: train on the built-in demo survey, then use what came out.

python examples/quickstart.py                 # trains first, which takes about a minute
python examples/quickstart.py runs/first      # uses a run that is there
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from pluralllm_app import Predictor, Question

FACTORS = Path(__file__).parent.parent / "conf" / "factors.toml"


def train() -> str:
    """Let the demo's train groups learn latent factors together; returns the run directory."""
    run = Path(tempfile.mkdtemp()) / "run"
    command = [sys.executable, "-m", "pluralllm_app", "run", "--out", str(run)]
    subprocess.run([*command, "--config", str(FACTORS)], check=True)
    return str(run)


def main() -> None:
    predictor = Predictor.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else train())
    print(f"\n{len(predictor.questions)} questions of {predictor.about.survey}\n")

    # What is known of a group: some of its answers, as shares, percentages or numbers of people ...
    answers = {
        "Would you vote for a plan to guard schooling for our own people?": {
            "Yes, for it": 12,
            "No, against it": 988,
        },
        "How important is it to you to open schooling to our neighbours?": {
            "Very important": 540,
            "Rather important": 330,
            "Not very important": 110,
            "Not important at all": 20,
        },
    }
    # ... and a line that says who it is. Either is enough.
    group = predictor.group(answers, description="People in Kelmara", name="Kelmara")
    for note in group.notes:
        print(f"Note: {note}")

    # Questions of the survey are asked by their texts or ids, new ones with their options.
    found = group.predict(
        [
            "Would you vote for a plan to open health care to our neighbours?",
            Question("Should the library be open to everybody?", ["Yes", "No", "Don't know"]),
        ]
    )
    print(found)
    answer = found[0]
    low, high = answer.intervals[0.8]["Yes, for it"]
    print(f"\n{answer['Yes, for it']:.0%} are for it, between {low:.0%} and {high:.0%} (80 %)\n")

    # How does the group differ from what all groups answer on average?
    average = predictor.group(name="the average group")
    print(group.compare(average))


if __name__ == "__main__":
    main()
