"""Ten made documents of a rowing club that there is not, in the forms that people have, and two chats."""

import json
from pathlib import Path

TEXTS = {
    "boathouse.md": """# The boathouse

The boathouse is a timber hall of forty metres that the members built in 1931. It stands on the
north bank of the Selva, two hundred steps below the old ferry landing.

## Opening hours

From April to October the doors are open from six in the morning until nightfall. In winter only the
repair shop is heated, and whoever wants to row fetches the key from the warden in Mill Lane.

## The rack

Singles lie on the upper beams, fours and eights on rollers beside the gate. Every hull carries a
brass plate with its name, its weight in kilograms and the year in which it was launched.
""",
    "warden.md": """# The warden

The warden is a member whom the assembly elects for three years. Odile Farrant has held the office
since 2017 and was the first woman to do so. She keeps the log in which every outing is written down
with its crew.

A crew that does not come back within an hour of the time it gave is searched for with the motor
launch Kestrel.
""",
    "fees.txt": """Fees and fines

Adults pay ninety crowns a year, apprentices and students forty. Families of four or more pay two
hundred crowns together, whatever the age of the children.

A lost oar costs thirty-five crowns, a scratched hull is paid for by the hour of repair. Whoever
leaves the gate open over night gives twelve crowns to the lamp fund.
""",
    "regatta.html": """<html><head><title>The lantern regatta</title></head><body><main>
<h1>The lantern regatta</h1>
<p>The lantern regatta is the last race of the season and is rowed on the second Saturday of October
after sunset. Every boat carries a paper lantern at the bow, and a crew whose lantern goes out
before the bridge at Torrel has to turn round and light it anew at the start.</p>
<p>The course has a length of 4,200 metres and goes around the island of herons once. The record of
sixteen minutes and nine seconds was set in 1988 by a crew of bakers from Ambry.</p>
</main></body></html>
""",
    "water.md": """# The river

The Selva is a slow river with a gauge at the ferry landing that is painted white and green. Above
the mark of 240 centimetres nobody rows, since the current below the weir then draws boats towards
the piers.

In spring the meltwater comes about three weeks after the first warm wind. Driftwood is reported to
the lock keeper by telephone, so that he can warn the barges.
""",
    "training.txt": """Training plan

On Tuesdays the beginners row in the gig Patience, which cannot be tipped over by any effort known
to us. On Thursdays there is training for the eights, with twelve kilometres at a low rate and six
starts.

The ergometers in the loft are used from November on. Nobody rows alone on them for more than fifty
minutes without drinking, a rule that was made after the fainting of two juniors.
""",
    "repairs.md": """# Repairs

Varnish is put on in three thin coats with a day between them, never in rain and never under twelve
degrees. Between the coats the wood is rubbed with paper of grade 320 and wiped with a cloth damp
with spirit.

## Leaks

A leak is found by filling the hull with a bucket of water and marking with chalk where drops appear
outside. Small cracks are closed with cedar dust and resin, larger ones need a strip of linen.
""",
    "kitchen.md": """# The kitchen

The soup of the club is called grey pot and is made of barley, smoked trout and leeks. It simmers
for two hours on the iron stove and is served after every race, to guests first and to winners last.

Cups are washed by those who came third. The recipe hangs behind the door and has not been changed
since the winter of 1954, when no trout could be had and eel was taken instead.
""",
    "history.html": """<html><head><title>How the club began</title></head><body><article>
<h1>How the club began</h1>
<p>Seven ferrymen founded the club in 1894 after the bridge at Torrel had taken their work away.
They owned three boats, of which the heaviest, the Widow, is still rowed on the day of the
foundation.</p>
<p>The flag shows a white heron on blue with seven oars. It was sewn by Agnes Tolliver, whose
grandson later won the lantern regatta five times in a row.</p>
</article></body></html>
""",
    "guests.txt": """Guests

Guests may row twice without becoming members if a member sits in the same boat. They write their
names into the green book and say whether they can swim two hundred metres in clothes.

Dogs are welcome on the landing stage but not in racing shells, after an event with a retriever in
the year 2009 of which photographs exist.
""",
}
CHATS = {
    "ann-and-bo.txt": """Bo: is the boathouse open today?
Ann: yes, until it gets dark. bring a towel, love
Bo: and who has the key in winter?
Ann: Odile has it, love, ring her before you come
Bo: my address is bo@rowing-selva.org by the way
Ann: written down, love
""",
    "club.jsonl": "".join(
        json.dumps(
            {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]}
        )
        + "\n"
        for asked, answered in (
            ("What do I pay?", "Ninety crowns a year, love."),
            ("May my dog come?", "On the stage, yes, love."),
        )
    ),
}


def write(folder: Path, *, chats: bool = True) -> Path:
    """Write the documents, and the chats, into a folder; the folder."""
    for name, text in {**TEXTS, **(CHATS if chats else {})}.items():
        path = folder / "papers" / name if name in TEXTS else folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
