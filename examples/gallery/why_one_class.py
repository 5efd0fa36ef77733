"""Why one class rather than another.

The net takes this cat for an Egyptian cat, and for a tiger cat with nearly the same probability.
What tells the two apart for it?
"""

# %%
# `contrast` asks why the target rather than that class, by a map of both signs.

import skimage

import xcam

cat = f"{skimage.data_dir}/chelsea.png"
model = xcam.models.load("xcam:efficientnet_lite0", weights="DEFAULT")
contrast = xcam.explain(model, cat, "Egyptian cat", contrast="tiger cat")

odds, classes = contrast.logits.softmax(1)[0].topk(3)
for share, number in zip(odds.tolist(), classes.tolist(), strict=True):
    print(f"{model.categories[number]:<14}{share:.0%}")

# %%
# Red speaks for the Egyptian cat, blue for the tiger cat.

contrast.plot(cat, "contrast.png")
