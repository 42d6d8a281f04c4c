// The webcam of the page: one at a time, and a plain word where there is none.
const WIDEST = 640; // pixels of a frame

/** Why the page cannot film, in words; empty where it may try. */
function cannotFilm() {
  if (navigator.mediaDevices && navigator.mediaDevices.getUserMedia) return "";
  return window.isSecureContext ? "this page gives no webcam" : "a page may use the webcam only over https or on localhost";
}

class Webcam {
  constructor() {
    this.video = make("video", { class: "tlnb-video", playsinline: "", muted: "", autoplay: "", "aria-label": "what the webcam sees" });
    this.video.muted = true; // the attribute alone does not make it so
  }

  /** Begin to film; gives back why not, in words, or nothing. */
  async start() {
    const words = cannotFilm();
    if (words) return words;
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: WIDEST }, facingMode: "environment" }, audio: false });
    } catch (error) {
      return { NotAllowedError: "the webcam was not allowed; the lock beside the page's address allows it", NotFoundError: "no webcam was found", NotReadableError: "the webcam is used by another program" }[error.name] || `the webcam does not start: ${error.message || error.name}`;
    }
    this.video.srcObject = this.stream;
    await this.video.play().catch(() => {});
    return "";
  }

  get on() {
    return Boolean(this.stream);
  }

  /** The frame of now as a JPEG; null before the first. */
  async grab() {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!width) return null;
    const scale = Math.min(1, WIDEST / Math.max(width, height));
    const canvas = Object.assign(document.createElement("canvas"), { width: Math.round(width * scale), height: Math.round(height * scale) });
    canvas.getContext("2d").drawImage(this.video, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
    return blob ? blob.arrayBuffer() : null;
  }

  stop() {
    if (this.stream) this.stream.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.srcObject = null;
  }
}
